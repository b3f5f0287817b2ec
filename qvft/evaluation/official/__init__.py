"""Scores prediction files in official layouts (COCO captions, VQA v2, medical VQA)."""
