"""A run may go on under another number of processes, if its steps still take as many texts."""

from __future__ import annotations

import os
from pathlib import Path

from qvft.errors import CheckpointError
from qvft.recipe.load import resolve_phase
from qvft.recipe.schema import Phase, Recipe


def without_cutting(recipe: Recipe) -> Recipe:
    """The recipe but for how a step's texts are cut into batches, to compare it with another."""
    same = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 1}
    train = recipe.train.model_copy(update=same)
    return recipe.model_copy(update={"train": train})


def require_same_step(folder: Path, before: Recipe, now: Recipe) -> None:
    """Checks that a run goes on with steps of as many texts as it has taken so far.

    A step takes batch size x accumulation x processes, or, where batches are counted in tokens, the
    batches of accumulation x processes; under that, gradients and the place in the data are the
    same however it is cut.

    Args:
        folder: the run folder.
        before: the recipe it holds.
        now: the recipe it is to go on with.

    Raises:
        CheckpointError: steps would take another number of texts, or a stream would be divided
            among another number of processes.
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
    """Processes that wrote a run's newest checkpoint; None where it has none."""
    states = list(folder.glob("checkpoints/*/checkpoint-*/trainer_state.json"))
    if not states:
        return None
    newest = max(states, key=lambda path: path.stat().st_mtime).parent
    # The Trainer leaves one of these a process where there are several.
    return max(1, len(list(newest.glob("rng_state_*.pth"))))


def _cut(recipe: Recipe, phase: Phase, processes: int) -> tuple[int, str]:
    """Texts a step, or batches where they are counted in tokens, and how they are cut."""
    _, train = resolve_phase(recipe, phase)
    size, accumulated = train.per_device_train_batch_size, train.gradient_accumulation_steps
    batches = accumulated * processes
    cut = f"accumulation {accumulated} x {processes} process{'' if processes == 1 else 'es'}"
    if train.batch_tokens is not None:
        return batches, cut
    return size * batches, f"batch {size} x {cut}"
