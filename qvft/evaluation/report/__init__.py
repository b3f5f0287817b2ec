"""Evaluation report: JSON, HTML, notebook, terminal."""
