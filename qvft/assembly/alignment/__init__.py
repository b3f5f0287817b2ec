"""Alignment heads at work: made for a run, and used for retrieval and classes by prompts."""
