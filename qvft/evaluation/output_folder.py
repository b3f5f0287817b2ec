"""Output folder of an evaluation: a different evaluation is never overwritten.

RUN/eval/DATASET-SPLIT is for the first evaluation. Repeating it, with the run's current weights,
replaces it; one with other texts, images, prompts, decoding or metrics gets a folder next to it,
named after the difference.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qvft.errors import DataError
from qvft.evaluation.evaluation_facts import SettingDifference, setting_differences
from qvft.evaluation.stored_evaluation import (
    REPORT_FILES,
    StoredEvaluation,
    holds_evaluation,
    read_evaluation,
    stored_facts,
)
from qvft.files import require_writable
from qvft.log import get_logger, is_main_process
from qvft.setup.resolve_model import ResolvedModel

if TYPE_CHECKING:
    from qvft.evaluation.task import Task

logger = get_logger("qvft.eval")

_MODEL_SETTINGS = ("image_size", "dtype", "quantize", "attention")
"""Model facts that matter: how it computes, not its weights, which may change."""
_LONGEST_ENDING = 40
"""Maximum characters after DATASET-SPLIT; a folder name may have 255 bytes."""


def output_folder(opened: ResolvedModel, split_name: str) -> Path:
    """RUN/eval/SPLIT; for a recipe's base RUN/eval-base/SPLIT; for a model FOLDER/eval/SPLIT."""
    if opened.kind == "base":
        return Path(opened.recipe.run_dir) / "eval-base" / split_name
    if opened.home is not None:
        return opened.home / "eval" / split_name
    return Path(opened.recipe.run_dir) / f"eval-{opened.name.replace('/', '--')}" / split_name


def require_replaceable(folder: Path) -> None:
    """Checks that a report can be written to `folder`.

    It may be missing, empty, or contain only an earlier report.

    Raises:
        DataError: it contains something else, or is not writable.
    """
    require_writable(folder, folder=True)
    if not folder.exists():
        return
    if {path.name for path in folder.iterdir()} - REPORT_FILES:
        raise DataError(
            "holds other files than a report",
            where=str(folder),
            do="name a new folder with --out; what is there would be replaced",
        )


def choose_folder(task: Task, plain: Path, *, named: bool = False, overwrite: bool = False) -> Path:
    """The folder for an evaluation.

    Args:
        named: whether the user named this folder.
        overwrite: whether any evaluation in `plain` may be replaced.

    Raises:
        DataError: as `require_replaceable`, or a named folder has another evaluation.
    """
    require_replaceable(plain)
    reason = None if overwrite else _why_another(task, plain)
    if reason is None:
        return plain
    if named:
        raise DataError(
            f"holds another evaluation ({reason})",
            where=str(plain),
            do="name a new folder with --out, or replace this one with --overwrite",
        )
    folder = _folder_next_to(plain, task)
    if is_main_process():
        logger.warning(
            "%s holds another evaluation (%s); this one goes to %s", plain, reason, folder
        )
    return folder


def _why_another(task: Task, folder: Path) -> str | None:
    """Difference between a stored evaluation and `task`, ignoring weights; None if there is none.

    None also if there is no readable report.
    """
    if not holds_evaluation(folder):
        return "its report is missing" if (folder / "predictions.jsonl").exists() else None
    try:
        differing = _differing(task, read_evaluation(folder))
    except DataError:
        return None  # damaged: nothing to keep
    reasons = [f"{one.setting}: {_cut(one.b)}, not {_cut(one.a)}" for one in differing[:3]]
    more = f", and {len(differing) - 3} more" if len(differing) > 3 else ""
    return "; ".join(reasons) + more or None


def evaluations_called(plain: Path) -> Iterator[Path]:
    """Folders of evaluations of data with one name: `plain`, and those next to it."""
    others = sorted(plain.parent.glob(f"{glob.escape(plain.name)}-*"))
    yield from (folder for folder in (plain, *others) if holds_evaluation(folder))


def free_name(folder: Path, stem: str, suffix: str = "") -> Path:
    """The first of STEM, STEM-2, STEM-3, ... with this suffix that does not exist."""
    names = chain([stem], (f"{stem}-{number}" for number in count(2)))
    paths = (folder / f"{name}{suffix}" for name in names)
    return next(path for path in paths if not path.exists())


def _folder_next_to(plain: Path, task: Task) -> Path:
    """The folder next to `plain` with this evaluation, or a free one named after the difference."""
    for folder in evaluations_called(plain):
        if folder != plain and _why_another(task, folder) is None:
            require_replaceable(folder)
            return folder
    ending = re.sub(r"[^\w.=-]+", "_", _ending(task, plain))[:_LONGEST_ENDING].strip("._-")
    return free_name(plain.parent, f"{plain.name}-{ending}")


def _ending(task: Task, plain: Path) -> str:
    """The first difference from the evaluation in `plain`, in a word."""
    if not holds_evaluation(plain):
        return "again"
    stored = read_evaluation(plain)
    first = _differing(task, stored)[0]
    part, _, name = first.setting.partition(".")
    if part == "data":
        if task.split.source.limit is not None:
            return f"limit={task.split.source.limit}"
        path, before = task.data.path, (stored.content.get("data") or {}).get("path")
        return (Path(path).parent.name if path and path != before else "") or "data"
    name = name.replace("captions.", "caption.").replace("questions.", "answer.")
    return f"{name or part}={first.a}"


def _differing(task: Task, stored: StoredEvaluation) -> list[SettingDifference]:
    """What makes `task` (a) another evaluation than the stored one (b), the most telling first.

    Weights, speed and versions do not count, except another base.
    """
    of_model: tuple[str, ...] = _MODEL_SETTINGS
    if task.opened.kind == "base":
        of_model = (*of_model, "base_weights_sha256")  # another base, not a later one
    found = setting_differences(
        _settings(task.facts(), of_model), _settings(stored_facts(stored.content), of_model)
    )
    # Common fields first: length_penalty comes with beams.
    found.sort(key=lambda one: (not one.setting.startswith("data."), one.b is None))
    content, metrics = stored.content, task.group_names()
    if content["n"] != len(task.rows):
        found.append(SettingDifference(setting="texts", a=task.split.source.texts, b=content["n"]))
    before = content.get("n_by_group") or {}
    if set(before) - set(metrics):
        found.append(
            SettingDifference(setting="metrics", a="-".join(metrics), b="-".join(sorted(before)))
        )
    if "blind" in (content.get("baselines") or {}) and not task.shows_blind():
        found.append(SettingDifference(setting="blind", a="false", b="true"))
    return found


def _settings(facts: Mapping[str, Any], of_model: Sequence[str]) -> dict[str, Any]:
    return {
        "data": {k: v for k, v in facts["data"].items() if k not in ("format", "name")},
        "decode": {k: v for k, v in facts["decode"].items() if k != "batch_size"},
        "model": {k: facts["model"].get(k) for k in of_model},
    }


def _cut(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
