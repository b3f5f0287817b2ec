"""Tries a recipe's library settings with two training steps on a tiny model."""

from __future__ import annotations

import logging
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from transformers.integrations import get_reporting_integration_callbacks

from qvft.data.rows import Row
from qvft.data.sample import ImageFile, Sample
from qvft.recipe.refused_settings import require_accepted
from qvft.recipe.train import Spike
from qvft.training.arguments import training_arguments
from qvft.training.phase_setup import PhaseSetup
from qvft.training.trainer import QFormerTrainer

ROWS, WIDTH = 8, 4


def require_trainable(train: Mapping[str, Any], *, workers: int = 0, where: str = "train") -> None:
    """Raises RecipeError for fields of `train.arguments`, or a tracker, that a library refuses.

    Only settings passed on to a library can make it raise, so a recipe without `arguments` and
    `report_to` is not tried. Trackers are built but receive nothing.
    """
    settings = {**train["arguments"]}
    if train["report_to"]:
        settings["report_to"] = list(train["report_to"])

    def attempt(some: Mapping[str, Any]) -> None:
        further = {name: value for name, value in some.items() if name != "report_to"}
        setting = {**train, "report_to": some.get("report_to", []), "arguments": further}
        rehearse(setting, workers=min(workers, 1))

    def key(name: str) -> str:
        return f"{where}.report_to" if name == "report_to" else f"{where}.arguments.{name}"

    if settings:
        with _without_side_effects():
            require_accepted(settings, attempt, key=key)


def rehearse(train: Mapping[str, Any], *, workers: int = 0) -> None:
    """Trains a tiny model for two steps with a `train` section, evaluates and saves."""
    short = {
        "epochs": 1.0,
        "max_steps": 2,
        "batch_tokens": None,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 1,
        "eval_steps": 1,
        "save_steps": 2,
        "logging_steps": 1,
        "load_best_model_at_end": False,
        "arguments": {**train["arguments"], "disable_tqdm": True},
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        module = _StandIn()
        sample = Sample("0", ImageFile(Path("none")))
        rows = [Row(f"{number}", sample, "caption", None, "", (), {}) for number in range(ROWS)]
        setup = PhaseSetup(
            name="rehearsal",
            module=module,
            arguments=training_arguments(
                {**train, **short}, output_dir=folder / "0", seed=0, workers=workers, has_eval=True
            ),
            groups=[
                {"params": [parameter], "lr": 1e-3, "weight_decay": 0.0, "name": name}
                for name, parameter in module.named_parameters()
            ],
            train_rows=rows,
            eval_rows=rows[:2],
            collator=_batch,
            early_stopping=None,
            texts_per_image=1,
            callbacks=(),
            spikes=Spike(**train["spike"]),
        )
        trainer = QFormerTrainer(
            setup,
            save_weights=lambda folder: folder.mkdir(parents=True, exist_ok=True),
            restore_weights=lambda folder: None,
            metrics_file=folder / "metrics.jsonl",
        )
        trainer.remove_callback(trainer.progress)
        if setup.arguments.world_size > 1:  # steps would be collective
            trainer.create_optimizer_and_scheduler(2)
            return
        for tracker in get_reporting_integration_callbacks(setup.arguments.report_to):
            trainer.remove_callback(tracker)
        (folder / "0").mkdir(exist_ok=True)
        trainer.train()


class _StandIn(nn.Module):
    """A module whose forward returns what an objective's does."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, values: Tensor, labels: Tensor) -> dict[str, Tensor]:
        losses = self.layer(values).square().mean(dim=1)
        return {
            "loss_sum": losses.sum(),
            "count": torch.tensor(len(losses)),
            "row_loss": losses.detach(),
            "row_count": torch.ones(len(losses)),
            "exact": torch.zeros(len(losses)),
        }


def _batch(rows: Sequence[tuple[int, Row]]) -> dict[str, Tensor]:
    numbers = [number for number, _ in rows]
    return {
        "values": torch.ones(len(rows), WIDTH),
        "labels": torch.zeros(len(rows), 1, dtype=torch.long),
        "row_index": torch.tensor(numbers),
    }


@contextmanager
def _without_side_effects() -> Iterator[None]:
    """Silences logs and restores random states."""
    level = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity(logging.CRITICAL)
    of_python, of_numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(), redirect_stdout(StringIO()):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)
        transformers.utils.logging.set_verbosity(level)
