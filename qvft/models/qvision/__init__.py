"""QVision, the second model family. Importing it makes transformers' Auto classes know it."""

from qvft.models.qvision.registration import register

register()
