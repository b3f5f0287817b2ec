"""Output folder of an evaluation: a different evaluation is never overwritten.

RUN/eval/DATASET-SPLIT is for the first evaluation. Repeating it, with the run's current weights,
replaces it; one with other texts, images, prompts, decoding or metrics gets a folder next to it,
named after the difference.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
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


def place_of(task: Task, plain: Path, *, named: bool = False, overwrite: bool = False) -> Path:
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


def warn_of_lost_comparison(folder: Path) -> None:
    """Logs the comparison of a report that is about to be replaced by one without."""
    if not holds_evaluation(folder):
        return
    with suppress(DataError):
        against = read_evaluation(folder).content.get("against")
        if against:
            logger.warning(
                "%s: the comparison with %s is not made again; --against %s does that",
                folder,
                against["name"],
                against["name"],
            )


def _why_another(task: Task, folder: Path) -> str | None:
    """Difference between a stored evaluation and `task`, ignoring weights; None if there is none.

    None also if there is no readable report.
    """
    if not holds_evaluation(folder):
        return "its report is missing" if (folder / "predictions.jsonl").exists() else None
    try:
        stored = read_evaluation(folder)
    except DataError:
        return None  # damaged: nothing to keep
    reasons = [
        f"{item.setting}: {_cut(item.b)}, not {_cut(item.a)}" for item in _differing(task, stored)
    ]
    if reasons:
        more = f", and {len(reasons) - 3} more" if len(reasons) > 3 else ""
        return "; ".join(reasons[:3]) + more
    if stored.content["n"] != len(task.rows):
        return f"{stored.content['n']} texts of the same images, not {len(task.rows)}"
    if lost := _lost_groups(task, stored):
        return f"other metrics: {', '.join(lost)}"
    return "other baselines: blind" if _loses_blind(task, stored) else None


def evaluations_called(plain: Path) -> Iterator[Path]:
    """Folders of evaluations of data with one name: `plain`, and those next to it."""
    others = sorted(plain.parent.glob(f"{glob.escape(plain.name)}-*"))
    yield from (folder for folder in (plain, *others) if holds_evaluation(folder))


def free_name(path: Path) -> Path:
    """`path`, or the first of `path`-2, -3, ... that does not exist."""
    number, found = 1, path
    while found.exists():
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found


def _folder_next_to(plain: Path, task: Task) -> Path:
    """The folder next to `plain` with this evaluation, or a free one."""
    for folder in evaluations_called(plain):
        if folder != plain and _why_another(task, folder) is None:
            require_replaceable(folder)
            return folder
    ending = re.sub(r"[^\w.=-]+", "_", _ending(task, plain))[:_LONGEST_ENDING].strip("._-")
    number, found = 1, plain.with_name(f"{plain.name}-{ending}")
    while found.exists():
        number += 1
        found = plain.with_name(f"{plain.name}-{ending}-{number}")
    return found


def _ending(task: Task, plain: Path) -> str:
    """Difference from the evaluation in `plain`, in a word or two."""
    if not holds_evaluation(plain):
        return "again"
    stored = read_evaluation(plain)
    differing = _differing(task, stored)
    words = []
    if any(item.setting.startswith("data.") for item in differing):
        words.append(_data_word(task, stored))
    # Common fields first: length_penalty comes with beams.
    for item in sorted(differing, key=lambda one: one.b is None):
        part, _, rest = item.setting.partition(".")
        if part != "data":
            name = rest.replace("captions.", "caption.").replace("questions.", "answer.")
            plain_value = isinstance(item.a, bool | int | float | str) and len(str(item.a)) <= 12
            words.append(f"{name}={item.a}" if plain_value else name)
    if words:
        fitting = [words[0]]
        for word in words[1:]:
            if len("-".join([*fitting, word])) <= _LONGEST_ENDING:
                fitting.append(word)
        return "-".join(fitting)
    if stored.content["n"] != len(task.rows):
        return f"texts={task.split.source.texts}"
    if _lost_groups(task, stored):
        return "metrics=" + "-".join(task.group_names())
    return "blind=false" if _loses_blind(task, stored) else "again"


def _data_word(task: Task, stored: StoredEvaluation) -> str:
    """Word that distinguishes this data from other data of that name."""
    source = task.split.source
    before = (stored.content.get("data") or {}).get("path")
    path = task.data.path
    if path is not None and before != path and Path(path).parent.name:
        return Path(path).parent.name
    if source.limit is not None:
        return f"limit={source.limit}"
    if (stored.content.get("data") or {}).get("images") != task.data.images:
        return f"{task.data.images}-images"
    return f"data={(task.data.images_sha256 or task.data.sha256 or '')[:8]}"


def _differing(task: Task, stored: StoredEvaluation) -> list[SettingDifference]:
    """Differences of the tasks, except weights, speed and versions."""
    of_model: tuple[str, ...] = _MODEL_SETTINGS
    if task.opened.kind == "base":
        of_model = (*of_model, "base_weights_sha256")  # another base, not a later one
    return setting_differences(
        _settings(task.facts(), of_model), _settings(stored_facts(stored.content), of_model)
    )


def _settings(facts: Mapping[str, Any], of_model: Sequence[str]) -> dict[str, Any]:
    return {
        "data": {k: v for k, v in facts["data"].items() if k not in ("format", "name")},
        "decode": {k: v for k, v in facts["decode"].items() if k != "batch_size"},
        "model": {k: facts["model"].get(k) for k in of_model},
    }


def _lost_groups(task: Task, stored: StoredEvaluation) -> list[str]:
    """Metrics of the stored report that the new one would not have."""
    there = stored.content.get("n_by_group") or {}
    return sorted(set(there) - set(task.group_names()))


def _loses_blind(task: Task, stored: StoredEvaluation) -> bool:
    return "blind" in (stored.content.get("baselines") or {}) and not task.shows_blind()


def _cut(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
