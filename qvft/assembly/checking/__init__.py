"""What `qvft.check` finds in a recipe or a run before anything is trained."""
