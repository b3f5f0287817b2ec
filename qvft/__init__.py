"""Parameter-efficient fine-tuning of Q-Former vision-language models.

`qvft.fit` trains from Python, `qvft.load_model` gives a model that captions and answers,
`qvft.load_embedding_model` one that embeds images and texts; `qvft` and `python -m qvft` are the
same as commands. docs/python.md explains each public name.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from qvft import errors
from qvft.cpu_threads import wait_passively

if TYPE_CHECKING:
    from qvft.api.run import Run, fit
    from qvft.data.formats.format_table import register_format
    from qvft.evaluation.metric_table import register_metric
    from qvft.inference.embedding_model import EmbeddingModel, load_embedding_model
    from qvft.inference.vision_language_model import VisionLanguageModel, load_model
    from qvft.models.decoders import register_decoder
    from qvft.models.families import register_family
    from qvft.recipe.schema import Recipe
    from qvft.training.objectives.objective_table import register_objective

    __version__: str

# On some processors bitsandbytes advises at every import to fetch a kernel for a way of computing
# that `models.quantize.disable_cpu_repacking` does not take.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

__all__ = [
    "EmbeddingModel",
    "Recipe",
    "Run",
    "VisionLanguageModel",
    "__version__",
    "errors",
    "fit",
    "load_embedding_model",
    "load_model",
    "register_decoder",
    "register_family",
    "register_format",
    "register_metric",
    "register_objective",
]

_MODULES = {
    "EmbeddingModel": "qvft.inference.embedding_model",
    "Recipe": "qvft.recipe.schema",
    "Run": "qvft.api.run",
    "VisionLanguageModel": "qvft.inference.vision_language_model",
    "fit": "qvft.api.run",
    "load_embedding_model": "qvft.inference.embedding_model",
    "load_model": "qvft.inference.vision_language_model",
    "register_decoder": "qvft.models.decoders",
    "register_family": "qvft.models.families",
    "register_format": "qvft.data.formats.format_table",
    "register_metric": "qvft.evaluation.metric_table",
    "register_objective": "qvft.training.objectives.objective_table",
}
"""The module that each public name comes from."""

wait_passively()  # before any module of qvft loads torch


def __getattr__(name: str) -> Any:
    """Imports a public name when it is asked for, since most bring torch along."""
    if name == "__version__":
        from importlib.metadata import version

        return version("qvft")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """The public names, without importing any."""
    return sorted(__all__)
