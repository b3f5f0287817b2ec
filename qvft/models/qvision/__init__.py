"""QVision model family. Importing it registers it with transformers' Auto classes."""

from qvft.models.qvision.registration import register

register()
