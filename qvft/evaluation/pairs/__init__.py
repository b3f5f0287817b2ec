"""`qvft pairs`: preference pairs from several texts per prompt and a score of each."""
