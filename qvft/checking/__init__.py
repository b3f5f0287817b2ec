"""What `qvft.check` finds, and how it looks on a screen."""
