"""Compares two evaluations of the same items: `qvft.eval A --against B`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from qvft.errors import UserError
from qvft.evaluation.comparison import Comparison, compare
from qvft.evaluation.embedding_metrics import ZERO_SHOT, stored_groups
from qvft.evaluation.evaluate import NOTHING, Evaluated, Load, Retained, evaluate, evaluate_again
from qvft.evaluation.evaluation_facts import SettingDifference, setting_differences
from qvft.evaluation.likelihoods import CANDIDATES
from qvft.evaluation.metric import GroupScores
from qvft.evaluation.output_folder import (
    choose_folder,
    evaluations_called,
    output_folder,
    require_replaceable,
)
from qvft.evaluation.pairing import pair
from qvft.evaluation.rows import PredictionRow
from qvft.evaluation.scoring import Scores
from qvft.evaluation.stored_evaluation import (
    StoredEvaluation,
    read_evaluation,
    readable_evaluation,
    stored_facts,
)
from qvft.evaluation.task import Task, prepare
from qvft.log import get_logger
from qvft.setup.resolve_model import ResolvedModel

logger = get_logger("qvft.eval")

STOOD, MADE = "an evaluation that stood there", "evaluated for this comparison"
# Expected differences of two models, which are not reported.
_OF_WEIGHTS = (
    "model.adapter_sha256", "model.base", "model.decoder", "model.recipe_sha256",
    "model.started_from",
)  # fmt: skip


def settings_apart(
    a: Mapping[str, Any], b: Mapping[str, Any], kinds: Collection[str]
) -> list[SettingDifference]:
    """Differences of two evaluations' facts that the models themselves do not explain.

    Args:
        kinds: of the models, see `ResolvedModel`.
    """
    # A merged folder has its image size in its configuration, where no recipe sets it.
    expected = (*_OF_WEIGHTS, "model.image_size") if "model" in kinds else _OF_WEIGHTS
    return [item for item in setting_differences(a, b) if not item.setting.startswith(expected)]


def evaluate_against(
    task: Task,
    folder: Path,
    target: str,
    other: ResolvedModel | None,
    *,
    retention: Retained = NOTHING,
    overwrite: bool = False,
    load: Load | None = None,
) -> Evaluated:
    """Evaluates A, or reuses its report, and compares it with B item by item.

    B comes first, so that its errors are reported before A generates anything.

    Args:
        task: A; its report in `folder` is reused if weights, data, decoding and versions are
            unchanged.
        target: B as the user named it.
        other: B's model, from `compared_with`; None: `target` is the folder of an evaluation.
        retention, overwrite, load: of A, as in `evaluate`.

    Raises:
        UserError: B cannot be compared, or has other items.
    """
    require_replaceable(folder)
    if other is None:
        stored, origin = read_evaluation(Path(target)), STOOD
    else:
        stored, origin = _evaluation_of(other, task)
    pairing = pair(task.asked(), stored.rows, where=str(stored.folder))
    for count, side in ((len(pairing.only_a), target), (len(pairing.only_b), task.opened.name)):
        if count:
            logger.warning("%d items are not compared: %s lacks them", count, side)
    facts, facts_b = task.facts(), stored_facts(stored.content)
    kinds = (task.opened.kind, str((stored.content.get("model") or {}).get("kind")))
    settings = settings_apart(facts, facts_b, kinds)
    other_tasks = [
        group
        for group, key in ((ZERO_SHOT, "classes"), (CANDIDATES, "candidates_sha256"))
        if facts["decode"][key] != facts_b["decode"].get(key)
    ]

    def comparison(rows: Sequence[PredictionRow], scores: Scores) -> Comparison:
        return compare(
            rows,
            scores,
            pairing,
            name=target,
            folder=str(stored.folder),
            origin=origin,
            others=_groups_of_model(stored, rows, without=other_tasks),
            settings=settings,
        )

    earlier = readable_evaluation(folder)
    if earlier is not None:
        reason = _why_not_reused(task, earlier)
        if reason is None:
            logger.info("%s: used again; weights, data and decoding are the same", folder)
            return evaluate_again(task, earlier, compare=comparison, retention=retention)
        logger.info("%s: evaluated again (%s)", folder, reason)
    return evaluate(
        task, folder, compare=comparison, retention=retention, overwrite=overwrite, load=load
    )


def _groups_of_model(
    stored: StoredEvaluation, rows: Sequence[PredictionRow], *, without: Collection[str]
) -> dict[str, GroupScores]:
    """B's metrics that are not of texts, by A's row numbers, without those of another task (with
    other classes or candidates)."""
    by_id: Mapping[str, Mapping[str, float | str]] = {
        row.id: scores for row, scores in zip(stored.rows, stored.scores, strict=True)
    }
    found = stored_groups(rows, [by_id.get(row.id, {}) for row in rows])
    return {name: group for name, group in found.items() if name not in without}


def _evaluation_of(opened: ResolvedModel, task: Task) -> tuple[StoredEvaluation, str]:
    """B's evaluation and its origin: an existing one, else a new one on A's data."""
    other_task = prepare(opened, split=task.split)
    found = _stored(other_task)
    if found is not None:
        return found, STOOD
    # A report in B's own folder is not replaced.
    own, apart = _folders(other_task)
    made = evaluate(other_task, choose_folder(other_task, apart if own.exists() else own))
    return read_evaluation(made.folder), MADE


def _folders(task: Task) -> tuple[Path, Path]:
    """Folders of a model's evaluations: its own, and those made for comparisons."""
    own = output_folder(task.opened, task.split.name)
    return own, own.parent.with_name(f"{own.parent.name}-against") / own.name


def _stored(task: Task) -> StoredEvaluation | None:
    """A stored evaluation with the texts that this task would have; None if there is none."""
    own, apart = _folders(task)
    for folder in (*evaluations_called(own), *evaluations_called(apart)):
        stored = readable_evaluation(folder)
        if stored is None:
            continue
        reason = task.mismatch(stored)
        if reason is None:
            logger.info("%s: used; it has the same weights, data and decoding", folder)
            return stored
        logger.info("%s: not used (%s)", folder, reason)
    return None


def evaluation_of_start(task: Task, start: ResolvedModel) -> str | None:
    """Folder of a stored evaluation, on the same items, of the run that a run started from; None
    if there is none, or that run's base is gone: then nothing is compared unless `--against` asks
    for it.
    """
    try:
        found = _stored(prepare(start, split=task.split))
    except UserError as error:
        logger.info("not compared with the run it started from: %s", error)
        return None
    return None if found is None else str(found.folder)


def _why_not_reused(task: Task, stored: StoredEvaluation) -> str | None:
    """Why a report, not only its texts, must be made again; None if it need not."""
    report = stored.report()
    if report is None:
        return "written by another version of qvft"
    if set(report.n_by_group) != set(task.group_names()):
        return "other metrics"
    if ("blind" in report.baselines) != task.shows_blind():
        return "other baselines"
    return task.mismatch(stored)
