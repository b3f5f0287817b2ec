"""Where queries look, and what that is worth."""
