"""Alignment beside generation: the Q-Former's text branch, its heads and their scores."""
