"""Data quality checks: duplicates, data leakage, contradictions, text statistics."""
