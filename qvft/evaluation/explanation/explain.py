"""Explains a caption or answer: generates it and computes its attention heatmaps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qvft.data.pixels import denormalised
from qvft.data.rows import Row
from qvft.data.truncation import cut_warnings
from qvft.disk import disk_failure, not_written
from qvft.errors import FailedError
from qvft.evaluation.explanation.maps import FloatArray, explain_texts
from qvft.evaluation.figure_formats import figure_format
from qvft.inference.generation_config import generation_fields
from qvft.inference.predict import predict_texts
from qvft.log import get_logger
from qvft.recipe.schema import Recipe
from qvft.setup.model import Loaded
from qvft.setup.resolve_model import ResolvedModel, load_resolved

logger = get_logger("qvft.explain")


def explain_image(opened: ResolvedModel, row: Row, *, out: Path) -> str:
    """Writes the figure of a model's text about an image; returns the text.

    Args:
        row: from `the_one_row`.
        out: `.png`, `.svg` or `.pdf`; an existing file is replaced.

    Raises:
        UserError: the model or image does not fit, or `out` cannot be written.
        FailedError: the model generates no word to explain.
    """
    form = figure_format(out, option="--out")
    from qvft.evaluation.explanation.chart import explanation_figure, figure_bytes

    loaded = load_resolved(opened)
    (text,) = generated_texts(loaded, opened.recipe, [row])
    (explained,) = explain_texts(loaded.model, loaded.collator, [row], [text])
    if explained is None:
        raise FailedError("the model says nothing about this image: there is no word to explain")
    figure = explanation_figure(
        explained,
        seen_image(loaded, row),
        title="Caption" if row.question is None else f"Asked: {row.question}",
        model=opened.name,
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(figure_bytes(figure, form))
    except OSError as error:
        if disk_failure(error) is not None:
            raise
        raise not_written(error, out) from error
    return text


def seen_image(loaded: Loaded, row: Row) -> FloatArray:
    """The image as preprocessed for the model: (height, width, 3) in 0..1."""
    pixels = loaded.collator.pixels([row.sample.image])[0]
    return denormalised(pixels, loaded.collator.image_processor)


def generated_texts(loaded: Loaded, recipe: Recipe, rows: Sequence[Row]) -> list[str]:
    """Generated text of each row, decoded as in its recipe; warns of truncated prompts."""
    for sentence in cut_warnings(rows, loaded.template, loaded.collator.reader, asked=True):
        logger.warning("%s", sentence)
    return predict_texts(
        loaded.model,
        loaded.collator,
        rows,
        generation=generation_fields(recipe),
        batch_size=recipe.eval.batch_size,
        workers=0 if len(rows) == 1 else recipe.data.num_workers,
    )
