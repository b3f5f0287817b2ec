"""Files of the official layouts, from any system, and what the official evaluators make of them."""
