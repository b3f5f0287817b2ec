"""Resuming with another number of processes: the global batch size must stay."""

from __future__ import annotations

import os
from pathlib import Path

from qvft.errors import CheckpointError
from qvft.recipe.load import resolve_phase
from qvft.recipe.schema import Phase, Recipe


def without_cutting(recipe: Recipe) -> Recipe:
    """The recipe without the keys that only split a global batch (batch size, gradient
    accumulation), for comparison.
    """
    same = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 1}
    train = recipe.train.model_copy(update=same)
    return recipe.model_copy(update={"train": train})


def require_same_step(folder: Path, before: Recipe, now: Recipe) -> None:
    """Checks that a resumed run keeps its global batch size.

    A step uses batch size x gradient accumulation x processes texts, or, under a token budget,
    gradient accumulation x processes batches; if that is equal, gradients and position in the data
    are the same for any split.

    Args:
        folder: the run folder.
        before: the recipe it holds.
        now: the recipe to resume with.

    Raises:
        CheckpointError: the global batch size would change, or a stream would be divided among
            another number of processes.
    """
    processes = processes_of(folder)
    if processes is None:
        return
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if now.data.train is not None and now.data.train.stream and started != processes:
        raise CheckpointError(
            f"{started} process{'' if started == 1 else 'es'} would divide the stream otherwise",
            where=str(folder),
            expected=f"{processes}, as the run began",
            do=f"start {processes}",
        )
    phases = now.phases or [Phase(name="train")]
    for phase in phases:
        was, will = _cut(before, phase, processes), _cut(now, phase, started)
        if was[0] != will[0]:
            _, train = resolve_phase(now, phase)
            by_tokens = train.batch_tokens is not None
            unit = "batches" if by_tokens else "texts"
            keys = "" if by_tokens else "train.per_device_train_batch_size or "
            raise CheckpointError(
                f"{will[0]} {unit} a step ({will[1]}) where the run took {was[0]} ({was[1]})",
                where=str(folder),
                expected=f"{was[0]} {unit} a step",
                do=f"start as many processes, or set {keys}train.gradient_accumulation_steps",
            )


def processes_of(folder: Path) -> int | None:
    """Number of processes that wrote a run's newest checkpoint; None if there is none."""
    states = list(folder.glob("checkpoints/*/checkpoint-*/trainer_state.json"))
    if not states:
        return None
    newest = max(states, key=lambda path: path.stat().st_mtime).parent
    # The Trainer writes one of these per process if there are several.
    return max(1, len(list(newest.glob("rng_state_*.pth"))))


def _cut(recipe: Recipe, phase: Phase, processes: int) -> tuple[int, str]:
    """Texts per step (batches under a token budget), and how they are split."""
    _, train = resolve_phase(recipe, phase)
    size, accumulated = train.per_device_train_batch_size, train.gradient_accumulation_steps
    batches = accumulated * processes
    cut = f"accumulation {accumulated} x {processes} process{'' if processes == 1 else 'es'}"
    if train.batch_tokens is not None:
        return batches, cut
    return size * batches, f"batch {size} x {cut}"
