"""Checks before training: recipe, data, memory, preflight, and a finished run's files."""
