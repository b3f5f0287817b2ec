"""Models of qvft for the trainers of other libraries."""
