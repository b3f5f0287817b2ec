"""Trains one phase: objective, optimizer, learning rate schedule, checkpoints, resume."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from transformers import EarlyStoppingCallback, TrainerCallback, TrainingArguments

from qvft.data.rows import Row
from qvft.json_files import read_json, write_json
from qvft.training.batches.augmented_views import ViewDraw
from qvft.training.batches.numbered_rows import RowDataset
from qvft.training.batches.streamed import StreamedBatches
from qvft.training.batches.token_budget_sampler import TokenBatchSampler
from qvft.training.checkpoints import STATE, whole_checkpoints
from qvft.training.metrics_log import MetricsLog
from qvft.training.recovery.spikes import SpikeRule
from qvft.training.trainer import QFormerTrainer


@dataclass(frozen=True)
class PhaseSetup:
    """Everything needed to train a phase.

    Attributes:
        name: name of the phase.
        module: its objective around the model.
        arguments: its TrainingArguments; `output_dir` holds its checkpoints.
        groups: its parameter groups.
        train_rows, eval_rows: its data; without eval rows there is no evaluation.
        collator: collates rows to a batch.
        texts_per_image: rows of an image that are kept together in a batch.
        batches: token-budget batches, instead of the arguments' batch size.
        views: draws the views of the training images; None: no augmentation.
        stream: batches of a stream, instead of `train_rows`.
        early_stopping: evaluations without a lower loss before it stops (patience), or None.
        callbacks: further callbacks.
        spikes: loss spike rule; None: off.
    """

    name: str
    module: nn.Module
    arguments: TrainingArguments
    groups: list[dict[str, Any]]
    train_rows: Sequence[Row]
    eval_rows: Sequence[Row] | None
    collator: Callable[..., Any]
    early_stopping: int | None
    texts_per_image: int
    callbacks: Sequence[TrainerCallback]
    spikes: SpikeRule | None = None
    batches: TokenBatchSampler | None = None
    views: ViewDraw | None = None
    stream: StreamedBatches | None = None


def build_trainer(
    setup: PhaseSetup,
    *,
    save_weights: Callable[[Path], None],
    restore_weights: Callable[[Path], None],
    metrics_file: Path,
) -> QFormerTrainer:
    """Builds the Trainer of a phase."""
    log = MetricsLog(metrics_file, setup.name)
    callbacks: list[TrainerCallback] = [log, *setup.callbacks]
    if setup.early_stopping is not None:
        callbacks.append(EarlyStoppingCallback(setup.early_stopping))
    stream, rows = setup.stream, RowDataset(setup.train_rows, setup.views)
    seen = rows if stream is None else stream.rows
    return QFormerTrainer(
        model=setup.module,
        args=setup.arguments,
        data_collator=setup.collator,
        train_dataset=seen,
        eval_dataset=RowDataset(setup.eval_rows) if setup.eval_rows else None,
        callbacks=callbacks,
        groups=setup.groups,
        save_weights=save_weights,
        restore_weights=restore_weights,
        row_names=lambda indices: [seen[index][1].id for index in indices],
        texts_per_image=setup.texts_per_image,
        spikes=setup.spikes,
        note=log.note,
        batches=setup.batches,
        stream=stream,
    )


def last_checkpoint(folder: Path) -> str | None:
    """The newest complete checkpoint of a phase, or None."""
    whole = whole_checkpoints(folder)
    return str(whole[-1]) if whole else None


def final_checkpoint(folder: Path, *, best: bool) -> Path | None:
    """The checkpoint that a phase ended with, None if it has steps left.

    A run may be interrupted between its last checkpoint and its adapter. The Trainer, resumed
    there, would take one step too many.

    Args:
        folder: folder of the phase's checkpoints.
        best: whether the phase ends with the best checkpoint instead of the last.
    """
    last = last_checkpoint(folder)
    if last is None:
        return None
    state = read_json(Path(last) / STATE)
    if not state["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"]:
        return None
    # By its name: the run folder may have been moved.
    return folder / Path((best and state["best_model_checkpoint"]) or last).name


def follow_move(folder: Path) -> None:
    """Updates the path of the best checkpoint in the last checkpoint after a move of the run
    folder.

    The Trainer stores an absolute path, and would forget the best checkpoint of a run folder that
    was moved or copied.
    """
    last = last_checkpoint(folder)
    if last is None:
        return
    state = read_json(Path(last) / STATE)
    noted = state.get("best_model_checkpoint")
    if noted is not None and Path(noted).parent != folder:
        write_json(
            Path(last) / STATE, {**state, "best_model_checkpoint": str(folder / Path(noted).name)}
        )


def mark_done(folder: Path) -> None:
    """Marks a phase as finished; `weights` next to the mark holds its trained weights."""
    write_json(folder / "done.json", {"done": True})


def is_done(folder: Path) -> bool:
    """Whether a phase finished in an earlier start of this run."""
    return (folder / "done.json").is_file()
