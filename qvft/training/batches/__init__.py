"""Which rows a step sees, and in which order."""
