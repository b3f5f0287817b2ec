"""What `qvft.bench` measures and says: this recipe beside plain practice."""
