"""What `qvft.eval` does: predictions, scores, comparison and report of a model."""
