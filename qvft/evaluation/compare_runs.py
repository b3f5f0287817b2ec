"""Compares two evaluations of the same items: `qvft.eval A --against B`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qvft.errors import DataError
from qvft.evaluation.compared_model import open_alike
from qvft.evaluation.comparison import Comparison, compare
from qvft.evaluation.embedding_metrics import ZERO_SHOT, groups_kept
from qvft.evaluation.evaluation_facts import SettingDifference, setting_differences
from qvft.evaluation.metric import GroupScores
from qvft.evaluation.output_folder import (
    evaluations_called,
    output_folder,
    place_of,
    require_replaceable,
)
from qvft.evaluation.pairing import Pairing, pair
from qvft.evaluation.rows import PredictionRow
from qvft.evaluation.run import (
    Evaluated,
    evaluate,
    evaluate_again,
    kept_scores,
    why_report_is_other,
)
from qvft.evaluation.scoring import Scores
from qvft.evaluation.stored_evaluation import (
    StoredEvaluation,
    facts_of,
    facts_read,
    holds_evaluation,
    read_standing,
)
from qvft.evaluation.task import Task, prepare
from qvft.log import get_logger

logger = get_logger("qvft.eval")

STOOD, MADE = "an evaluation that stood there", "evaluated for this comparison"
# Expected differences of two models, which are not reported.
_OF_WEIGHTS = ("model.adapter_sha256", "model.base", "model.recipe_sha256")


@dataclass(frozen=True)
class Other:
    """B: its name, its evaluation, its origin, and its items' scores by id."""

    name: str
    standing: StoredEvaluation
    origin: str
    scores: Mapping[str, Mapping[str, float | str]]


def evaluate_against(
    task: Task,
    folder: Path,
    target: str,
    *,
    recipe_path: str | None = None,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
) -> Evaluated:
    """Evaluates A, or reuses its report, and compares it with B item by item.

    B comes first, so that its errors are reported before A generates anything, and A's earlier
    report is kept.

    Args:
        task: A, from `prepare`.
        folder: from `place_of`: folder of A's report, which is reused if weights, data, decoding
            and versions are unchanged.
        target: B: the folder of an evaluation, a run, a model folder or a hub id.
        recipe_path, overrides: those of A, for a B that is not a run.
        overwrite: as `place_of`, for A.

    Raises:
        UserError: B cannot be compared, or has other items.
    """
    require_replaceable(folder)
    other = _other(task, target, recipe_path=recipe_path, overrides=overrides)
    pairing = pair(task.asked(), other.standing.rows, where=str(other.standing.folder))
    for count, side in ((len(pairing.only_a), target), (len(pairing.only_b), task.opened.name)):
        if count:
            logger.warning("%d items are left out of the comparison: %s lacks them", count, side)

    def comparison(rows: Sequence[PredictionRow], scores: Scores) -> Comparison:
        return _compare(task, rows, scores, pairing, other)

    standing = _readable(folder)
    if standing is not None:
        reason = why_report_is_other(task, standing)
        if reason is None:
            logger.info("%s: used again; weights, data and decoding are the same", folder)
            return evaluate_again(task, standing, compare=comparison)
        logger.info("%s: evaluated again (%s)", folder, reason)
    return evaluate(task, folder, compare=comparison, overwrite=overwrite)


def _compare(
    task: Task,
    rows: Sequence[PredictionRow],
    scores: Scores,
    pairing: Pairing,
    other: Other,
) -> Comparison:
    return compare(
        rows,
        scores,
        pairing,
        name=other.name,
        folder=str(other.standing.folder),
        origin=other.origin,
        others=_groups_of_model(task, rows, other),
        settings=_settings(task, other.standing),
    )


def _groups_of_model(
    task: Task, rows: Sequence[PredictionRow], other: Other
) -> dict[str, GroupScores]:
    """B's embedding metrics, by A's row numbers."""
    found = groups_kept(rows, [other.scores.get(row.id, {}) for row in rows])
    asked = facts_of(task.model, task.data, task.decode, task.versions)["decode"]
    theirs = facts_read(other.standing.content)["decode"]
    if asked["classes"] != theirs.get("classes"):
        found.pop(ZERO_SHOT, None)  # with other classes it is another task
    return found


def _settings(task: Task, other: StoredEvaluation) -> list[SettingDifference]:
    """Differences of decoding, data, model type and versions between B's evaluation and A's."""
    facts = facts_of(task.model, task.data, task.decode, task.versions)
    differing = setting_differences(facts, facts_read(other.content))
    return [item for item in differing if not item.setting.startswith(_OF_WEIGHTS)]


def _other(task: Task, target: str, *, recipe_path: str | None, overrides: Sequence[str]) -> Other:
    """B's evaluation: an existing one, else a new one on A's data."""
    named = Path(target)
    if holds_evaluation(named):
        # Read completely, since A's report may replace it.
        return _stood(target, read_standing(named))
    opened = open_alike(target, task.opened, recipe_path=recipe_path, overrides=overrides)
    asked = prepare(opened, split=task.split)
    own = output_folder(opened, task.split.name)
    apart = own.parent.with_name(f"{own.parent.name}-against") / own.name
    for folder in (*evaluations_called(own), *evaluations_called(apart)):
        standing = _readable(folder)
        if standing is None:
            continue
        reason = asked.mismatch(standing)
        if reason is None:
            logger.info("%s: used, weights, data and decoding are those wanted", folder)
            return _stood(target, standing)
        logger.info("%s: not used (%s)", folder, reason)
    # A report in B's own folder is not replaced.
    made = evaluate(asked, place_of(asked, apart if own.exists() else own))
    standing = StoredEvaluation(made.folder, made.rows, made.report.to_json())
    return replace(_stood(target, standing), origin=MADE)


def _stood(name: str, standing: StoredEvaluation) -> Other:
    scores = kept_scores(standing.folder)
    by_id = {row.id: found for row, found in zip(standing.rows, scores, strict=True)}
    return Other(name, standing, STOOD, by_id)


def _readable(folder: Path) -> StoredEvaluation | None:
    """The stored evaluation of a folder; None if there is none, or it is damaged."""
    if not holds_evaluation(folder):
        return None
    try:
        return read_standing(folder)
    except DataError as error:
        logger.warning("%s", error)
        return None
