"""What a split is like before anything is trained on it: copies, contradictions, texts."""
