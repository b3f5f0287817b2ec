"""Run folder of a training run: ownership, progress, whether a recipe resumes the run in it, and
what its lock file says that the run began with.

Does not import torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qvft.adapters.manifest import MANIFEST
from qvft.disk import not_written
from qvft.errors import CheckpointError
from qvft.locks import LOCK, inside
from qvft.log import is_main_process
from qvft.recipe.phases import phase_plans
from qvft.recipe.recipe_lock import LOCK_NAME, read_lock, shaping_differences, write_lock
from qvft.recipe.schema import Recipe
from qvft.recipe.train import Train
from qvft.setup.streaming import is_streamed
from qvft.training.checkpoints import STATE

_COMMIT = re.compile(r"[0-9a-f]{40}")
NAMED_KEYS = 5
"""Maximum number of differing keys in a message."""


def is_finished(folder: Path) -> bool:
    """Whether the run in `folder` has written its final adapter."""
    return (folder / "adapter" / MANIFEST).is_file()


def has_progress(folder: Path) -> bool:
    """Whether a run folder holds a checkpoint, a finished phase or a final adapter."""
    patterns = (f"checkpoints/*/checkpoint-*/{STATE}", "checkpoints/*/done.json")
    return is_finished(folder) or any(any(folder.glob(pattern)) for pattern in patterns)


def check_folder(recipe: Recipe) -> Path:
    """Checks that this recipe may use the run folder, and returns it; writes nothing.

    Raises:
        BusyError: another process trains there.
        CheckpointError: it holds another recipe's run, or this one's without `train.resume=auto`.
    """
    folder = Path(recipe.run_dir)
    if is_main_process() and (folder / LOCK).is_file():
        with inside(folder):  # not locked; a killed process left the file
            pass
    _require_own_run(recipe, folder)
    return folder


@contextmanager
def claimed_folder(recipe: Recipe, notes: Iterable[str] = ()) -> Iterator[None]:
    """Locks and initialises the run folder; for the main process."""
    if not is_main_process():
        yield
        return
    folder = Path(recipe.run_dir)
    with inside(folder):
        _require_own_run(recipe, folder)
        # What a process left that was killed while it wrote a file.
        for path in (*folder.glob(".*.partial"), *(folder / "checkpoints").rglob(".*.partial")):
            if path.is_file():
                path.unlink(missing_ok=True)
        try:
            write_lock(recipe, folder, notes)
        except OSError as error:
            raise not_written(error, folder) from error
        yield


def _require_own_run(recipe: Recipe, folder: Path) -> None:
    if not is_main_process() or not (folder / LOCK_NAME).is_file():
        return
    if not has_progress(folder):
        return  # an attempt without a checkpoint may be overwritten
    before = read_lock(folder)
    differing = shaping_differences(_with_batch_size_1(before), _with_batch_size_1(recipe))
    if differing:
        keys = [
            f"{key} is {_shown(there)} there and {_shown(here)} here"
            for key, there, here in differing
        ]
        more = f"; and {len(keys) - NAMED_KEYS} more keys" if len(keys) > NAMED_KEYS else ""
        raise CheckpointError(
            f"holds another recipe's run: {'; '.join(keys[:NAMED_KEYS])}{more}",
            where=str(folder),
            do="choose another folder with run.dir=PATH, or remove this one",
        )
    if recipe.train.resume == "never":
        raise CheckpointError(
            "already holds this recipe's run",
            where=str(folder),
            do="resume with train.resume=auto, or choose another folder with run.dir=PATH",
        )
    require_same_step(folder, before, recipe)


def _shown(value: Any) -> str:
    text = "not set" if value is None else str(value) or "empty"
    return text if len(text) <= 80 else f"{text[:80]}..."


def _with_batch_size_1(recipe: Recipe) -> Recipe:
    """The recipe without the keys that only split a global batch, for comparison."""
    same = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 1}
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=same)})


def require_same_step(folder: Path, before: Recipe, now: Recipe) -> None:
    """Raises CheckpointError if a resumed run would change its global batch size.

    A step uses batch size x gradient accumulation x processes texts, or, under a token budget,
    gradient accumulation x processes batches; if that is equal, gradients and position in the data
    are the same for any split. A stream is divided among as many processes as before.
    """
    processes = processes_of(folder)
    if processes is None:
        return
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if is_streamed(now, "train") and started != processes:
        raise CheckpointError(
            f"{started} process{'' if started == 1 else 'es'} would divide the stream otherwise",
            where=str(folder),
            expected=f"{processes}, as the run began",
            do=f"start {processes}",
        )
    for old, new in zip(phase_plans(before), phase_plans(now), strict=False):
        was, will = _global_batch(old.train, processes), _global_batch(new.train, started)
        if was[0] != will[0]:
            by_tokens = new.train.batch_tokens is not None
            unit = "batches" if by_tokens else "texts"
            keys = "" if by_tokens else "train.per_device_train_batch_size or "
            raise CheckpointError(
                f"{will[0]} {unit} per step ({will[1]}) where the run took {was[0]} ({was[1]})",
                where=str(folder),
                expected=f"{was[0]} {unit} per step",
                do=f"start as many processes, or set {keys}train.gradient_accumulation_steps",
            )


def processes_of(folder: Path) -> int | None:
    """Number of processes that wrote a run's newest checkpoint; None if there is none."""
    states = list(folder.glob(f"checkpoints/*/checkpoint-*/{STATE}"))
    if not states:
        return None
    newest = max(states, key=lambda path: path.stat().st_mtime).parent
    # The Trainer writes one of these per process if there are several.
    return max(1, len(list(newest.glob("rng_state_*.pth"))))


def _global_batch(train: Train, processes: int) -> tuple[int, str]:
    """Texts per step (batches under a token budget), and how they are split."""
    accumulated = train.gradient_accumulation_steps
    split = f"accumulation {accumulated} x {processes} process{'' if processes == 1 else 'es'}"
    if train.batch_tokens is not None:
        return accumulated * processes, split
    size = train.per_device_train_batch_size
    return size * accumulated * processes, f"batch {size} x {split}"


def revision_from_lock(recipe: Recipe) -> Recipe:
    """The recipe with the revisions that its run's lock file records, if there is one."""
    return resolve_revision(recipe) if has_progress(Path(recipe.run_dir)) else recipe


def rates_from_lock(recipe: Recipe) -> Recipe:
    """The recipe with the learning rates of its run's lock file, if it sets none itself."""
    folder = Path(recipe.run_dir)
    known = (folder / LOCK_NAME).is_file() and has_progress(folder)
    if recipe.train.learning_rate is not None or not known:
        return recipe
    rates = {"learning_rate": read_lock(folder).train.learning_rate}
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=rates)})


def resolve_revision(recipe: Recipe) -> Recipe:
    """The recipe with the commits of its hub ids, branches or tags; local folders are unchanged.

    A resumed run keeps the commits in its lock file.
    """
    given = [recipe.model.revision]
    if recipe.model.decoder is not None:
        given.append(recipe.model.decoder_revision)
    if all(_COMMIT.fullmatch(revision or "") for revision in given):
        return recipe
    folder = Path(recipe.run_dir)
    if (folder / LOCK_NAME).is_file() and has_progress(folder):
        locked = read_lock(folder).model
        found = {"revision": locked.revision, "decoder_revision": locked.decoder_revision}
    else:
        from qvft.setup.model import base_of  # imports torch, which a resumed run can load later

        base = base_of(recipe)
        found = {"revision": base.revision, "decoder_revision": base.decoder_revision}
    model = recipe.model.model_copy(update=found)
    return recipe.model_copy(update={"model": model})
