"""Runs an evaluation: predictions, scores, report on disk."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qvft.data.data_warnings import data_warnings, prediction_doubts
from qvft.data.truncation import cut_rows
from qvft.evaluation.baselines import (
    BLIND,
    BLIND_DEFINITION,
    FREQUENT,
    FREQUENT_DEFINITION,
    blind_images,
    frequent_answer_predictions,
)
from qvft.evaluation.calibration import calibrations
from qvft.evaluation.comparison import Comparison
from qvft.evaluation.embedding_metrics import RETRIEVAL, stored_groups
from qvft.evaluation.image_text_retrieval import retrieval_group
from qvft.evaluation.likelihoods import likelihood_groups, likelihood_values
from qvft.evaluation.metric import GroupScores
from qvft.evaluation.metric_table import METRICS
from qvft.evaluation.output_folder import (
    choose_folder,
    evaluations_called,
    require_replaceable,
)
from qvft.evaluation.report.report import Report
from qvft.evaluation.report.trained_phases import training_facts
from qvft.evaluation.report.verdict import retention_verdicts, verdicts
from qvft.evaluation.rows import PredictionRow, prediction_rows
from qvft.evaluation.scoring import Scores, score, with_groups
from qvft.evaluation.stored_evaluation import StoredEvaluation
from qvft.evaluation.task import Task
from qvft.evaluation.write_evaluation import kept_on_failure, replacing, write
from qvft.evaluation.zero_shot import zero_shot_group
from qvft.inference.distributed import predict_shared
from qvft.inference.encoding import Kept
from qvft.inference.predict import Outcome
from qvft.log import get_logger, is_main_process
from qvft.setup.alignment_heads import truncation_warnings
from qvft.setup.alignment_model import with_heads
from qvft.setup.feature_cache import with_features
from qvft.setup.model import Loaded
from qvft.setup.prompt_template import require_candidates_fit
from qvft.setup.query_similarity import query_similarity
from qvft.setup.resolve_model import load_resolved

logger = get_logger("qvft.eval")

Compare = Callable[[Sequence[PredictionRow], Scores], Comparison]
Load = Callable[[], Loaded]
Retained = Mapping[str, Comparison]
NOTHING: Retained = {}


@dataclass(frozen=True)
class Evaluated:
    """A report, and the folder that it was written to."""

    folder: Path
    report: Report


def evaluate(
    task: Task,
    folder: Path,
    *,
    compare: Compare | None = None,
    retention: Retained = NOTHING,
    overwrite: bool = False,
    load: Load | None = None,
) -> Evaluated:
    """Generates, scores, compares with baselines and writes the report.

    Args:
        load: gives the task's model; None: it is loaded here.
        retention: comparisons with the base on other data, see `retention.py`.
        folder: from `choose_folder`; an earlier report in it is replaced when the new one is
            complete.

    Raises:
        UserError: the folder has other content, or the checkpoint is wrong.
    """
    start = time.monotonic()
    require_replaceable(folder)
    recipe = task.opened.recipe
    model = load_resolved(task.opened) if load is None else load()
    loaded = with_features(model, recipe, task.split.samples)
    split, cut = task.split, cut_rows(task.rows, loaded.template, asked=True)
    warnings = data_warnings(
        task.rows,
        loaded.collator,
        images=len(split.samples),
        name=split.name,
        training=False,
        cut=cut,
    )
    if is_main_process():
        for text in warnings:
            logger.warning("%s", text)
    with replacing(folder) as partial:
        if is_main_process() and not overwrite:
            choose_folder(task, folder, named=True)  # another process may have been faster
        kept: Kept | None = {} if task.shows_blind() and task.is_deterministic() else None
        outcomes = _generate(loaded, task, kept=kept)
        answers = [one.texts[0] for one in outcomes]
        items = prediction_rows(task.rows, answers)
        with kept_on_failure(items, folder):
            scores = with_groups(
                _scored(task, items, outcomes), _groups_of_model(task, loaded, items, warnings)
            )
            baselines = _baselines(task, loaded, kept)
            similarity = query_similarity(loaded, split.samples)
            report = Report.from_scores(
                scores,
                title=_title(task),
                baselines={
                    **_base_metrics(task),
                    **{name: one.metrics for name, one in baselines.items()},
                },
                verdict=[
                    *verdicts(
                        items,
                        scores,
                        blind=baselines.get(BLIND),
                        frequent=baselines.get(FREQUENT),
                        query_similarity=similarity,
                    ),
                    *retention_verdicts(retention),
                ],
                retention=retention,
                query_similarity=similarity,
                calibration=calibrations(items, scores),
                against=compare(items, scores) if compare else None,
                definitions={FREQUENT: FREQUENT_DEFINITION, BLIND: BLIND_DEFINITION},
                counts={
                    "prompts_cut": cut.prompts,
                    "targets_cut": cut.targets,
                    "images_read": len(split.samples) + len(split.skipped),
                    "images_skipped": len(split.skipped),
                },
                warnings=[*split.remarks, *warnings, *prediction_doubts(answers)],
                skipped=[{"id": item.id, "reason": item.reason} for item in split.skipped],
                decode=task.decode,
                model=task.model,
                data=task.data,
                versions=dict(task.versions),
                wall_seconds=time.monotonic() - start,
                **training_facts(task.opened),
            )
            write(partial, task, report, items, scores)
    return Evaluated(folder, report)


def evaluate_again(
    task: Task, stored: StoredEvaluation, *, compare: Compare, retention: Retained = NOTHING
) -> Evaluated:
    """Adds comparisons to an existing report; nothing is generated.

    Args:
        task: what `stored` is an evaluation of, as `Task.mismatch` found.

    Raises:
        UserError: the folder has other content than a report.
    """
    report = stored.report()
    assert report is not None, "asked before whether it can be used"
    require_replaceable(stored.folder)
    # Current paths, since the data may have moved.
    items = prediction_rows(task.rows, [row.prediction for row in stored.rows])
    scores = with_groups(score(items, metrics=task.groups), stored_groups(items, stored.scores))
    baselines = {name: figures for name, figures in report.baselines.items() if name != "base"}
    report = report.model_copy(
        update={
            "title": _title(task),
            "model": report.model.model_copy(update={"name": task.opened.name}),
            "baselines": {**_base_metrics(task), **baselines},
            "against": compare(items, scores),
            "retention": dict(retention) or report.retention,
        }
    )
    with replacing(stored.folder) as partial:
        write(partial, task, report, items, scores)
    return Evaluated(stored.folder, report)


def _base_metrics(task: Task) -> dict[str, dict[str, float]]:
    """Metrics of a run's base under `base`, if it was evaluated on the same data in the same way;
    another evaluation of it is logged.
    """
    opened = task.opened
    if opened.kind != "run" or opened.home is None:
        return {}
    decode = task.decode.model_dump(mode="json") | {"batch_size": None}  # texts do not depend on it
    folders = list(evaluations_called(opened.home / "eval-base" / task.split.name))
    for folder in folders:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        same_decoding = report["decode"] | {"batch_size": None} == decode
        if report["data"]["sha256"] == task.split.sha256 and same_decoding:
            return {"base": report["metrics"]}
    if folders:
        logger.warning("%s: other data or decoding; not used as the base's metrics", folders[0])
    return {}


def _generate(
    loaded: Loaded, task: Task, *, kept: Kept | None, blind: bool = False
) -> list[Outcome]:
    """Generates each row's text, and ranks its candidates."""
    recipe = task.opened.recipe
    require_candidates_fit(recipe, loaded.base, loaded.template, task.rows)
    images = [row.sample for row in task.rows]
    if blind:
        swapped = blind_images(task.split.samples, seed=recipe.run.seed)
        images = [swapped[sample.id] for sample in images]
    return predict_shared(
        loaded.model,
        loaded.collator,
        task.rows,
        images,
        generation=task.generation,
        batch_size=recipe.eval.batch_size,
        workers=recipe.data.num_workers,
        label="blind" if blind else "evaluate",
        scoring=task.scoring(),
        kept=kept,
    )


def _scored(task: Task, items: Sequence[PredictionRow], outcomes: Sequence[Outcome]) -> Scores:
    """Scores of texts, and of their likelihoods and ranked candidates."""
    values = [likelihood_values(*pair) for pair in zip(task.rows, outcomes, strict=True)]
    return with_groups(score(items, metrics=task.groups), likelihood_groups(items, values))


def _groups_of_model(
    task: Task, loaded: Loaded, items: Sequence[PredictionRow], warnings: list[str]
) -> dict[str, GroupScores]:
    """Embedding metrics of the model; adds to `warnings`."""
    if not task.of_model:
        return {}
    recipe, aligned = task.opened.recipe, with_heads(task.opened, loaded)
    sources = [row.sample.image for row in task.rows]
    pace = {"batch_size": recipe.eval.batch_size, "workers": recipe.data.num_workers}
    groups = {}
    for name in task.of_model:
        if name == RETRIEVAL:
            captions = [
                text for row in task.rows if row.kind == "caption" for text in row.references
            ]
            warnings += truncation_warnings(aligned.branch, captions, name=task.split.name)
            groups[name] = retrieval_group(aligned, items, sources, top=recipe.eval.rerank, **pace)
        else:
            assert task.classes is not None
            groups[name] = zero_shot_group(aligned, items, sources, task.classes, **pace)
    return groups


def _baselines(task: Task, loaded: Loaded, kept: Kept | None) -> dict[str, Scores]:
    """Scores of the most frequent answers and of the image-blind baseline."""
    found: dict[str, Scores] = {}
    frequent = frequent_answer_predictions(task.opened.recipe, task.rows)
    if frequent is not None:
        asked = [row for row in task.rows if row.kind == "question"]
        wanted = [
            name for name in task.groups if name == "auto" or METRICS[name].kind == "question"
        ]
        found[FREQUENT] = score(prediction_rows(asked, frequent), metrics=wanted)
    if task.shows_blind():
        outcomes = _generate(loaded, task, kept=kept, blind=True)
        items = prediction_rows(task.rows, [one.texts[0] for one in outcomes])
        found[BLIND] = _scored(task, items, outcomes)
    return found


def _title(task: Task) -> str:
    return f"{Path(task.opened.name).name} on {task.split.name}"
