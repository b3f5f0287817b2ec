"""Parameter-efficient fine-tuning of Q-Former vision-language models.

`qvft.load_model` gives a model to be asked from Python; everything else is a program (`qvft.cli`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qvft.cpu_threads import wait_passively

if TYPE_CHECKING:
    from qvft.assembly.asking.vision_language_model import VisionLanguageModel, load_model

__all__ = ["VisionLanguageModel", "load_model"]

wait_passively()  # before any module of qvft loads torch


def __getattr__(name: str) -> Any:
    """Imports what is public when it is asked for, since it brings torch along."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from qvft.assembly.asking import vision_language_model

    return getattr(vision_language_model, name)
