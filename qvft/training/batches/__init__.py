"""Batch samplers: order of rows, token budget, padding, streaming."""
