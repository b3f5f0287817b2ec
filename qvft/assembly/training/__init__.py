"""All that a training run needs, put together from its recipe."""
