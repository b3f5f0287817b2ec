"""Alignment (ITC, ITM, ITG): the Q-Former's text branch, its heads and their scores."""
