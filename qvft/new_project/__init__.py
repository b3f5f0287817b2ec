"""What `qvft init` does: detects the format of data, splits it, writes a recipe that fits."""
