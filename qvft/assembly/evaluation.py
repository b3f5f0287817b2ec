"""From a run or model to predictions, scores and a report on disk."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from qvft.assembly.baselines import base_figures, frequent_answer_predictions
from qvft.assembly.data import Split, read_split
from qvft.assembly.generation import generation_fields
from qvft.assembly.model import Loaded, versions
from qvft.assembly.opening import Opened, load_opened
from qvft.data.images import decode as decode_image
from qvft.data.rows import Row, evaluation_rows
from qvft.errors import DataError, RecipeError
from qvft.evaluation.baselines import DEFINITION
from qvft.evaluation.decode import blind_images
from qvft.evaluation.groups import GROUPS
from qvft.evaluation.predict import predict_rows
from qvft.evaluation.report import Report, write_report
from qvft.evaluation.rows import PredictionRow, row_to_json
from qvft.evaluation.scoring import Scores, score
from qvft.files import write_text
from qvft.recipe.schema import Recipe
from qvft.training.metrics_log import read_metrics

REPORT_FILES = {"predictions.jsonl", "report.json", "report.html"}
BLIND_DEFINITION = (
    "blind: the same model and texts, each shown the image of another sample; what it scores then "
    "owes nothing to the image."
)


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation wrote and found."""

    folder: Path
    report: Report


def output_folder(opened: Opened, split_name: str) -> Path:
    """RUN/eval/SPLIT; for a recipe's base RUN/eval-base/SPLIT; for a model FOLDER/eval/SPLIT."""
    if opened.kind == "base":
        return Path(opened.recipe.run_dir) / "eval-base" / split_name
    if opened.home is not None:
        return opened.home / "eval" / split_name
    return Path(opened.recipe.run_dir) / f"eval-{opened.name.replace('/', '--')}" / split_name


def evaluate(opened: Opened, folder: Path) -> Evaluated:
    """Generates, scores, compares with baselines and writes the report.

    Args:
        opened: from `open_target`.
        folder: where `predictions.jsonl`, `report.json` and `report.html` go; an earlier report
            there is replaced once the new one is whole.

    Raises:
        UserError: the recipe, the data or the checkpoint is wrong.
    """
    start = time.monotonic()
    recipe = opened.recipe
    folder = folder.resolve()
    _require_replaceable(folder)
    _require_known_metrics(recipe.eval.metrics)
    generation = generation_fields(recipe)
    split = read_split(recipe, "eval")
    rows = evaluation_rows(split.samples, texts=split.source.texts)
    if not rows:
        raise DataError("holds no text to evaluate", where="data.eval")
    loaded = load_opened(opened)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    answers = _ask(loaded, recipe, rows, label="evaluate", stream_to=partial / "predictions.jsonl")
    groups = "auto" if recipe.eval.metrics == ["auto"] else recipe.eval.metrics
    items = prediction_rows(rows, answers)
    scores = score(items, metrics=groups)
    baselines = _baselines(recipe, loaded, split, rows, groups)
    decode = {
        "captions": generation["caption"],
        "questions": generation["question"],
        "batch_size": recipe.eval.batch_size,
        "prompt": recipe.data.prompt.model_dump(),
    }
    if opened.kind == "run" and opened.home is not None:
        base = base_figures(opened.home / "eval-base" / split.name, split.sha256, decode)
        baselines = {"base": base, **baselines} if base is not None else baselines
    report = _report(opened, recipe, split, scores, baselines, decode, time.monotonic() - start)
    write_text(
        partial / "predictions.jsonl",
        "".join(
            json.dumps(row_to_json(item, values), ensure_ascii=False) + "\n"
            for item, values in zip(items, scores.per_item, strict=True)
        ),
    )
    write_report(
        partial,
        report,
        items,
        scores.per_item,
        image_for=_image_reader(recipe, rows),
        grid=recipe.eval.grid,
    )
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return Evaluated(folder, report)


def _require_replaceable(folder: Path) -> None:
    """The folder may be absent, empty, or hold an earlier report and nothing else."""
    if not folder.exists():
        return
    foreign = {path.name for path in folder.iterdir()} - REPORT_FILES if folder.is_dir() else {""}
    if foreign:
        raise DataError(
            "holds other files than a report" if folder.is_dir() else "is a file",
            where=str(folder),
            do="name a new folder with --out; what is there would be replaced",
        )


def _require_known_metrics(names: Sequence[str]) -> None:
    for name in names:
        if name not in GROUPS and list(names) != ["auto"]:
            raise RecipeError(
                f'"{name}"',
                where="eval.metrics",
                expected=f"some of {', '.join(GROUPS)}, or auto alone",
            )


def prediction_rows(rows: Sequence[Row], texts: Sequence[str]) -> list[PredictionRow]:
    """Rows with what was predicted for them."""
    return [
        PredictionRow(
            row.id,
            row.sample.image.name,
            row.kind,
            row.question,
            text,
            row.references,
            row.meta,
        )
        for row, text in zip(rows, texts, strict=True)
    ]


def _ask(
    loaded: Loaded,
    recipe: Recipe,
    rows: Sequence[Row],
    *,
    label: str,
    blind: bool = False,
    samples: Split | None = None,
    stream_to: Path | None = None,
) -> list[str]:
    """The model's text for each row, streamed to a file as batches finish."""
    images = [row.sample for row in rows]
    if blind and samples is not None:
        swapped = blind_images(samples.samples, seed=recipe.run.seed)
        images = [swapped[row.sample.id] for row in rows]
    texts = [""] * len(rows)
    stream = stream_to.open("w", encoding="utf-8") if stream_to else None
    for index, text in predict_rows(
        loaded.model,
        loaded.collator,
        rows,
        images,
        generation=generation_fields(recipe),
        batch_size=recipe.eval.batch_size,
        workers=recipe.data.workers,
        label=label,
    ):
        texts[index] = text
        if stream:
            stream.write(json.dumps({"id": rows[index].id, "prediction": text}) + "\n")
            stream.flush()
    if stream:
        stream.close()
    return texts


def _baselines(
    recipe: Recipe,
    loaded: Loaded,
    split: Split,
    rows: list[Row],
    groups: str | list[str],
) -> dict[str, dict[str, float]]:
    """Metrics of the most frequent answer and of the model shown other images."""
    found: dict[str, dict[str, float]] = {}
    frequent = frequent_answer_predictions(recipe, rows)
    if frequent is not None:
        asked = [row for row in rows if row.kind == "question"]
        wanted = groups if groups == "auto" else [g for g in groups if g != "captions"]
        found["most_frequent_answer"] = score(
            prediction_rows(asked, frequent), metrics=wanted
        ).metrics
    if recipe.eval.blind and len(split.samples) > 1:
        texts = _ask(loaded, recipe, rows, label="blind", blind=True, samples=split)
        found["blind"] = score(prediction_rows(rows, texts), metrics=groups).metrics
    return found


def _report(
    opened: Opened,
    recipe: Recipe,
    split: Split,
    scores: Scores,
    baselines: dict[str, dict[str, float]],
    decode: dict,
    seconds: float,
) -> Report:
    run = opened.home if opened.kind == "run" else None
    return Report.from_scores(
        scores,
        title=f"{Path(opened.name).name} on {split.name}",
        baselines=baselines,
        definitions={"most_frequent_answer": DEFINITION, "blind": BLIND_DEFINITION},
        counts={
            "images_read": len(split.samples) + len(split.skipped),
            "images_skipped": len(split.skipped),
        },
        skipped=[{"id": item.id, "reason": item.reason} for item in split.skipped],
        decode=decode,
        model={"name": opened.name, "kind": opened.kind, "base": recipe.model.id},
        data={
            "format": split.source.format,
            "name": split.name,
            "images": len(split.samples),
            "sha256": split.sha256,
        },
        versions=versions(),
        loss_curve=_curve(run),
        wall_seconds=seconds,
    )


def _curve(run: Path | None) -> list[dict[str, float]]:
    """Loss by step, from the run's metrics."""
    if run is None:
        return []
    kept = ("step", "loss", "eval_loss")
    rows = [{k: row[k] for k in kept if k in row} for row in read_metrics(run / "metrics.jsonl")]
    return [row for row in rows if len(row) > 1]


def _image_reader(recipe: Recipe, rows: Sequence[Row]) -> Callable:
    """A function from an image's name to its pixels."""
    sources = {row.sample.image.name: row.sample.image for row in rows}
    return lambda name: decode_image(sources[name], max_pixels=recipe.data.max_image_pixels)
