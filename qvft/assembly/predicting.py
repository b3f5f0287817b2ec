"""From a command line to prediction: the fields it sets, and the rows it writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from qvft.assembly.asking import VisionLanguageModel
from qvft.assembly.generation import check_fields, generation_fields
from qvft.assembly.opening import open_target
from qvft.data.rows import Row
from qvft.errors import RecipeError
from qvft.evaluation.prediction_file import PredictionFile, in_order, line_of


def field_options(further: Sequence[str]) -> dict[str, Any]:
    """`--num_beams 5` and `--num_beams=5` as `GenerationConfig` fields.

    Raises:
        RecipeError: an option without a value, or a name that is no such field.
    """
    fields: dict[str, Any] = {}
    items = iter(further)
    for item in items:
        name, equals, value = item.removeprefix("--").partition("=")
        if not item.startswith("--"):
            raise RecipeError(f'"{item}"', where="command line", expected="--FIELD VALUE")
        if not equals:
            value = next(items, "")
        if value == "":
            raise RecipeError("has no value", where=item)
        fields[name.replace("-", "_")] = YAML(typ="safe", pure=True).load(value)
    check_fields(fields, "command line: --")
    return fields


def predict_lines(
    model: str, rows: Sequence[Row], fields: Mapping[str, Any], *, batch_size: int, workers: int
) -> Iterator[str]:
    """One line of JSON a row, in order, see `prediction_file.line_of`.

    Args:
        model: run folder, model folder or hub id.
        rows: from `wanted_rows`.
        fields: `GenerationConfig` fields laid over the model's own decoding.
        batch_size: rows decoded together.
        workers: processes that decode images.

    Raises:
        UserError: the model is not there or does not fit, or a field's value is refused.
    """
    opened = open_target(model)
    generation_fields(opened.recipe, fields)  # refused before the weights are loaded
    found = VisionLanguageModel(opened).outcomes(
        rows, fields, batch_size=batch_size, workers=workers
    )
    return (line_of(rows[outcome.number], outcome) for outcome in in_order(found))


def predict_to_file(
    model: str,
    rows: Sequence[Row],
    fields: Mapping[str, Any],
    out: Path,
    *,
    resume: bool,
    batch_size: int,
    workers: int,
) -> int:
    """Writes `predict_lines` to a file as they come; returns how many rows stood there already.

    Args:
        resume: go on after the rows that stand in `out`; without it, a finished file is replaced
            and an unfinished one refused.

    Raises:
        UserError: as `predict_lines`, or `out` does not go with what is asked.
    """
    opened = open_target(model)
    settings = {
        "model": str(Path(model).resolve()) if Path(model).exists() else model,
        "prompt": opened.recipe.data.prompt.model_dump(),
        "decoding": generation_fields(opened.recipe, fields),
    }
    file = PredictionFile(out, rows, settings)
    if not resume:
        file.refuse_unfinished()
    finished = file.finished_rows() if resume else 0
    if finished < len(rows):
        asked = VisionLanguageModel(opened)
        left = rows[finished:]
        file.write(
            asked.outcomes(left, fields, batch_size=batch_size, workers=workers), finished=finished
        )
    return finished
