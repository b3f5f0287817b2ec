"""Parameter-efficient fine-tuning of Q-Former vision-language models.

`qvft.load_model` gives a model to be asked from Python; everything else is a program (`qvft.cli`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from qvft.cpu_threads import wait_passively

if TYPE_CHECKING:
    from qvft.inference.vision_language_model import VisionLanguageModel, load_model

# On some processors bitsandbytes advises at every import to fetch a kernel for a way of computing
# that `models.quantize.keep_layout` does not take.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

__all__ = ["VisionLanguageModel", "load_model"]

wait_passively()  # before any module of qvft loads torch


def __getattr__(name: str) -> Any:
    """Imports what is public when it is asked for, since it brings torch along."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from qvft.inference import vision_language_model

    return getattr(vision_language_model, name)
