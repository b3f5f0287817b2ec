"""Registers QVision with transformers' Auto classes."""

from __future__ import annotations

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText

from qvft.models.qvision.configuration import QVisionConfig
from qvft.models.qvision.modeling import QVisionForConditionalGeneration

AUTO_MODELS = (AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText)
"""Auto classes that `QVisionForConditionalGeneration` is registered with."""


def register() -> None:
    """Registers `model_type` qvision with `AutoConfig` and `AUTO_MODELS` in this process."""
    AutoConfig.register(QVisionConfig.model_type, QVisionConfig, exist_ok=True)
    for auto in AUTO_MODELS:
        auto.register(QVisionConfig, QVisionForConditionalGeneration, exist_ok=True)
