"""Registers QVision with transformers' Auto classes."""

from __future__ import annotations

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText

from qvft.models.qvision.configuration import QVisionConfig
from qvft.models.qvision.modeling import QVisionForConditionalGeneration

AUTO_MODELS = (AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText)
"""The Auto classes that give a `QVisionForConditionalGeneration`."""


def register() -> None:
    """Makes `AutoConfig` and `AUTO_MODELS` know `model_type` qvision in this process."""
    AutoConfig.register(QVisionConfig.model_type, QVisionConfig, exist_ok=True)
    for auto in AUTO_MODELS:
        auto.register(QVisionConfig, QVisionForConditionalGeneration, exist_ok=True)
