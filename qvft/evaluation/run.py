"""Runs an evaluation: predictions, scores, report on disk."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qvft.data.data_warnings import evaluation_warnings, prediction_doubts
from qvft.data.images.decoding import decode as decode_image
from qvft.data.rows import Row
from qvft.data.truncation import cut_rows
from qvft.evaluation.available_metrics import prediction_rows
from qvft.evaluation.baselines import (
    BLIND,
    BLIND_DEFINITION,
    FREQUENT,
    FREQUENT_DEFINITION,
    blind_images,
)
from qvft.evaluation.comparison import Comparison
from qvft.evaluation.embedding_metrics import RETRIEVAL, groups_kept, with_groups
from qvft.evaluation.image_text_retrieval import retrieval_group
from qvft.evaluation.metric import GroupScores
from qvft.evaluation.metric_table import METRICS
from qvft.evaluation.output_folder import (
    evaluations_called,
    name_lost_comparison,
    place_of,
    require_replaceable,
)
from qvft.evaluation.partial_output import kept_whatever_follows, replacing
from qvft.evaluation.report.report import Report
from qvft.evaluation.report.trained_phases import training_facts
from qvft.evaluation.report.verdict import verdicts
from qvft.evaluation.report.write import write_report
from qvft.evaluation.rows import PredictionRow, row_to_json
from qvft.evaluation.run_baselines import base_figures, frequent_answer_predictions
from qvft.evaluation.scoring import Scores, score
from qvft.evaluation.stored_evaluation import StoredEvaluation
from qvft.evaluation.task import Task
from qvft.evaluation.zero_shot import zero_shot_group
from qvft.files import write_text
from qvft.inference.distributed import predict_shared
from qvft.json_files import json_text, read_jsonl
from qvft.log import get_logger, is_main_process
from qvft.recipe.schema import Recipe
from qvft.setup.alignment_heads import truncation_warnings
from qvft.setup.alignment_model import with_heads
from qvft.setup.feature_cache import with_features
from qvft.setup.model import Loaded
from qvft.setup.query_similarity import query_similarity
from qvft.setup.resolve_model import load_resolved

logger = get_logger("qvft.eval")

Compare = Callable[[Sequence[PredictionRow], Scores], Comparison]


@dataclass(frozen=True)
class Evaluated:
    """Result of an evaluation."""

    folder: Path
    report: Report
    rows: list[PredictionRow]


def evaluate(
    task: Task, folder: Path, *, compare: Compare | None = None, overwrite: bool = False
) -> Evaluated:
    """Generates, scores, compares with baselines and writes the report.

    Args:
        task: from `prepare`.
        folder: from `place_of`: folder of `predictions.jsonl`, `report.json` and `report.html`; an
            earlier report is replaced when the new one is complete.
        compare: comparison of the scored rows, or None.
        overwrite: as `place_of`.

    Raises:
        UserError: the folder has other content, or the checkpoint is wrong.
    """
    start = time.monotonic()
    require_replaceable(folder)
    recipe = task.opened.recipe
    loaded = with_features(load_resolved(task.opened), recipe, task.split.samples)
    split, cut = task.split, cut_rows(task.rows, loaded.template, asked=True)
    warnings = evaluation_warnings(
        task.rows, loaded.collator, images=len(split.samples), name=split.name, cut=cut
    )
    if is_main_process():
        for text in warnings:
            logger.warning("%s", text)
    counts = {"prompts_cut": cut.prompts, "targets_cut": cut.targets}
    with replacing(folder) as partial:
        if not overwrite and is_main_process():
            place_of(task, folder, named=True)  # another process may have been faster
        if compare is None and is_main_process():
            name_lost_comparison(folder)
        answers = _ask(loaded, task, label="evaluate", stream_to=partial / "predictions.jsonl")
        items = prediction_rows(task.rows, answers)
        with kept_whatever_follows(items, folder):
            scores = with_groups(
                score(items, metrics=task.groups), _groups_of_model(task, loaded, items, warnings)
            )
            baselines = _baselines(task, loaded)
            similarity = query_similarity(loaded, task.split.samples)
            said = verdicts(
                items,
                scores,
                blind=baselines.get(BLIND),
                frequent=baselines.get(FREQUENT),
                query_similarity=similarity,
            )
            report = _report(
                task,
                scores,
                {**base_baseline(task), **{name: one.metrics for name, one in baselines.items()}},
                compare(items, scores) if compare else None,
                verdict=said,
                query_similarity=similarity,
                wall_seconds=time.monotonic() - start,
            )
            report = report.model_copy(
                update={
                    "warnings": [*task.split.remarks, *warnings, *prediction_doubts(answers)],
                    "counts": {**counts, **report.counts},
                }
            )
            _write(partial, task, report, items, scores)
    return Evaluated(folder, report, items)


def evaluate_again(task: Task, standing: StoredEvaluation, *, compare: Compare) -> Evaluated:
    """Adds a comparison to an existing report; nothing is generated.

    Args:
        task: what `standing` is an evaluation of, as `Task.mismatch` found.

    Raises:
        UserError: the folder has other content than a report.
    """
    report = standing.report()
    assert report is not None, "asked before whether it can be used"
    require_replaceable(standing.folder)
    # Current paths, since the data may have moved.
    items = prediction_rows(task.rows, [row.prediction for row in standing.rows])
    kept = groups_kept(items, kept_scores(standing.folder))
    scores = with_groups(score(items, metrics=task.groups), kept)
    baselines = {name: figures for name, figures in report.baselines.items() if name != "base"}
    report = report.model_copy(
        update={
            "title": _title(task),
            "model": report.model.model_copy(update={"name": task.opened.name}),
            "baselines": {**base_baseline(task), **baselines},
            "against": compare(items, scores),
        }
    )
    with replacing(standing.folder) as partial:
        _write(partial, task, report, items, scores)
    return Evaluated(standing.folder, report, items)


def why_report_is_other(task: Task, standing: StoredEvaluation) -> str | None:
    """Why a report, not only its texts, must be made again; None if it need not."""
    report = standing.report()
    if report is None:
        return "written by another version of qvft"
    if set(report.n_by_group) != set(task.group_names()):
        return "other metrics"
    if ("blind" in report.baselines) != task.shows_blind():
        return "other baselines"
    return task.mismatch(standing)


def kept_scores(folder: Path) -> list[dict[str, float | str]]:
    """Scores of each item of a stored evaluation, in the order of its rows."""
    return [row.get("scores") or {} for _, row in read_jsonl(folder / "predictions.jsonl")]


def base_baseline(task: Task) -> dict[str, dict[str, float]]:
    """Scores of a run's base under `base`, if it was evaluated in the same way."""
    opened = task.opened
    if opened.kind != "run" or opened.home is None:
        return {}
    folders = list(evaluations_called(opened.home / "eval-base" / task.split.name))
    base = base_figures(folders, task.split.sha256, task.decode.model_dump(mode="json"))
    return {} if base is None else {"base": base}


def _write(
    partial: Path, task: Task, report: Report, items: Sequence[PredictionRow], scores: Scores
) -> None:
    if not is_main_process():
        return
    write_text(
        partial / "predictions.jsonl",
        "".join(
            json_text(row_to_json(item, values)) + "\n"
            for item, values in zip(items, scores.per_item, strict=True)
        ),
    )
    recipe = task.opened.recipe
    write_report(
        partial,
        report,
        items,
        scores.per_item,
        image_for=_image_reader(recipe, task.rows),
        grid=recipe.eval.report_images,
    )


def _ask(
    loaded: Loaded, task: Task, *, label: str, blind: bool = False, stream_to: Path | None = None
) -> list[str]:
    """Generates each row's text, streamed to a file as batches finish."""
    recipe = task.opened.recipe
    images = [row.sample for row in task.rows]
    if blind:
        swapped = blind_images(task.split.samples, seed=recipe.run.seed)
        images = [swapped[row.sample.id] for row in task.rows]
    texts = [""] * len(task.rows)
    stream = stream_to.open("w", encoding="utf-8") if stream_to else None
    for index, text in predict_shared(
        loaded.model,
        loaded.collator,
        task.rows,
        images,
        generation=task.generation,
        batch_size=recipe.eval.batch_size,
        workers=recipe.data.num_workers,
        label=label,
    ):
        texts[index] = text
        if stream:
            stream.write(json.dumps({"id": task.rows[index].id, "prediction": text}) + "\n")
            stream.flush()
    if stream:
        stream.close()
    return texts


def _groups_of_model(
    task: Task, loaded: Loaded, items: Sequence[PredictionRow], said: list[str]
) -> dict[str, GroupScores]:
    """Embedding metrics of the model; `said` gets warnings."""
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
            said += truncation_warnings(aligned.branch, captions, name=task.split.name)
            groups[name] = retrieval_group(aligned, items, sources, top=recipe.eval.rerank, **pace)
        else:
            assert task.classes is not None
            groups[name] = zero_shot_group(aligned, items, sources, task.classes, **pace)
    return groups


def _baselines(task: Task, loaded: Loaded) -> dict[str, Scores]:
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
        texts = _ask(loaded, task, label="blind", blind=True)
        found[BLIND] = score(prediction_rows(task.rows, texts), metrics=task.groups)
    return found


def _report(
    task: Task,
    scores: Scores,
    baselines: dict[str, dict[str, float]],
    against: Comparison | None,
    **fields: Any,
) -> Report:
    """The report; `fields` are those specific to this evaluation."""
    split, opened = task.split, task.opened
    return Report.from_scores(
        scores,
        title=_title(task),
        baselines=baselines,
        against=against,
        definitions={FREQUENT: FREQUENT_DEFINITION, BLIND: BLIND_DEFINITION},
        counts={
            "images_read": len(split.samples) + len(split.skipped),
            "images_skipped": len(split.skipped),
        },
        skipped=[{"id": item.id, "reason": item.reason} for item in split.skipped],
        decode=task.decode,
        model=task.model,
        data=task.data,
        versions=dict(task.versions),
        **training_facts(opened),
        **fields,
    )


def _title(task: Task) -> str:
    return f"{Path(task.opened.name).name} on {task.split.name}"


def _image_reader(recipe: Recipe, rows: Sequence[Row]) -> Callable:
    """A function from an image's name to its pixels."""
    sources = {row.sample.image.name: row.sample.image for row in rows}
    return lambda name: decode_image(sources[name], max_pixels=recipe.data.max_image_pixels)
