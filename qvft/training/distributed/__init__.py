"""What several processes share of a model and of a step."""
