"""What `qvft runs` and `qvft sweep` do: runs side by side, and a run per combination of values."""
