"""The page of `qvft demo`: ask a model about an image, see why, say which text is better."""
