"""CPU seconds of each stage of one `qvft train`, imports first.

    python docs/studies/train_stages.py RECIPE [key.path=value ...]

CPU seconds of this process and its threads, not of the processes that decode images. Nothing is
profiled, so no stage is slowed down. Set QVFT_CACHE to an empty folder for a cold feature cache.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from typing import Any

from qvft.garbage_collection import rare_collections

STAGES = {
    "reading and checking the data": "qvft.training.prepare_training.read_split",
    "loading the model": "qvft.training.prepare_training.base_model",
    "feature cache": "qvft.training.training_run.with_features",
    "preflight: exchanged images": "qvft.training.phase_setup.check_image_matters",
    "training steps": "qvft.training.trainer.QFormerTrainer.training_step",
    "training, beside its steps": "qvft.training.trainer.QFormerTrainer.train",
    "saving": "qvft.training.training_run.save_checkpoint",
}
"""Functions by stage; of `train` the steps are taken off."""

IMPORTED = (
    "torch",
    "qvft.training.prepare_training",
    "qvft.training.phase_setup",
    "qvft.api.train",
)


def timed(function: Callable[..., Any], title: str, spent: dict[str, float]) -> Callable[..., Any]:
    """The function, whose CPU seconds are added up under a title."""

    def run(*given: Any, **options: Any) -> Any:
        start = time.process_time()
        try:
            return function(*given, **options)
        finally:
            spent[title] = spent.get(title, 0.0) + time.process_time() - start

    return run


def main() -> int:
    """Trains, and prints a line per stage."""
    with rare_collections():  # as in a program
        return trained()


def trained() -> int:
    """Trains with each stage timed."""
    spent: dict[str, float] = {}
    for name in IMPORTED:
        timed(importlib.import_module, "imports", spent)(name)
    for title, path in STAGES.items():
        owner, _, name = path.rpartition(".")
        try:
            holder = importlib.import_module(owner)
        except ModuleNotFoundError:  # a method
            module, _, cls = owner.rpartition(".")
            holder = getattr(importlib.import_module(module), cls)
        setattr(holder, name, timed(getattr(holder, name), title, spent))
    status = importlib.import_module("qvft.train").main(sys.argv[1:])
    spent["training, beside its steps"] -= spent["training steps"]
    spent["the rest"] = time.process_time() - sum(spent.values())
    for title, seconds in spent.items():
        print(f"{seconds:8.2f}  {title}")
    print(f"{time.process_time():8.2f}  all")
    return status


if __name__ == "__main__":
    sys.exit(main())
