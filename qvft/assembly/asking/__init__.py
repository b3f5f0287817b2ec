"""A model opened by its name and asked: predictions, answers from Python, attention."""
