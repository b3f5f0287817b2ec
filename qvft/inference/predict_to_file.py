"""`qvft predict`: parses GenerationConfig fields and writes predictions to a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from qvft.data.rows import Row
from qvft.errors import RecipeError
from qvft.files import require_writable
from qvft.inference.generation_config import check_fields
from qvft.inference.generation_trial import tried_fields
from qvft.inference.prediction_file import PredictionFile, in_order, line_of
from qvft.inference.vision_language_model import VisionLanguageModel
from qvft.models.weight_files import weight_files
from qvft.recipe.yaml_text import yaml_override_value
from qvft.setup.hashes import trained_files
from qvft.setup.model import base_of
from qvft.setup.resolve_model import ResolvedModel, resolve_model


def field_options(further: Sequence[str]) -> dict[str, Any]:
    """Parses `--num_beams 5` and `--num_beams=5` as `GenerationConfig` fields.

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
        fields[name.replace("-", "_")] = yaml_override_value(value, where=item)
    check_fields(fields, "command line: --")
    return fields


def predict_lines(
    model: str,
    rows: Sequence[Row],
    fields: Mapping[str, Any],
    *,
    overrides: Sequence[str] = (),
    batch_size: int,
    workers: int,
) -> Iterator[str]:
    """One line of JSON per row, in order, see `prediction_file.line_of`.

    Args:
        model: run folder, model folder or hub id.
        rows: from `resolve_inputs`.
        fields: `GenerationConfig` fields, override the model's.
        overrides: override the model's recipe.
        batch_size: rows decoded together.
        workers: processes that decode images.

    Raises:
        UserError: the model is not found or does not fit, or a field's value is refused.
    """
    opened = resolve_model(model, overrides=overrides)
    tried_fields(opened.recipe, base_of(opened.recipe), fields)  # before the weights are loaded
    torch.manual_seed(opened.recipe.run.seed)
    found = VisionLanguageModel(opened).outcomes(
        rows, fields, batch_size=batch_size, workers=workers
    )
    return (line_of(rows[outcome.number], outcome) for outcome in in_order(found))


@dataclass(frozen=True)
class Written:
    """Counts of a prediction: total rows, rows from before, and errors among the new ones."""

    rows: int
    before: int
    errors: int


def predict_to_file(
    model: str,
    rows: Sequence[Row],
    fields: Mapping[str, Any],
    out: Path,
    *,
    resume: bool,
    overrides: Sequence[str] = (),
    batch_size: int,
    workers: int,
) -> Written:
    """Writes `predict_lines` to a file as they are generated.

    Args:
        resume: continue after the rows in `out`; otherwise a finished file is replaced and an
            unfinished one refused.

    Raises:
        UserError: as `predict_lines`, or `out` is from another job.
    """
    opened = resolve_model(model, overrides=overrides)
    settings = {
        **identity(model, opened),
        "prompt": opened.recipe.data.prompt.recorded(),
        "text": opened.recipe.data.text,
        "decoding": tried_fields(opened.recipe, base_of(opened.recipe), fields),
    }
    if opened.recipe.data.preprocessing != "checkpoint":
        settings["preprocessing"] = opened.recipe.data.preprocessing
    file = PredictionFile(out, rows, settings)
    if resume:
        finished = file.finished_rows()
    else:
        file.refuse_what_would_be_lost()
        finished = 0
    require_writable(out)
    if finished == len(rows):
        file.mark_finished()
        return Written(finished, finished, 0)
    asked = VisionLanguageModel(opened)
    torch.manual_seed(opened.recipe.run.seed)
    found = asked.outcomes(rows[finished:], fields, batch_size=batch_size, workers=workers)
    return Written(len(rows), finished, file.write(found, finished=finished))


def identity(model: str, opened: ResolvedModel) -> dict[str, Any]:
    """Identity of the model in an output file's settings, so that rows of two models never mix.

    Args:
        model: the user's name for it.
    """
    name = str(Path(model).resolve()) if Path(model).exists() else model
    return {"model": name, "weights": _weights(opened)}


def _weights(opened: ResolvedModel) -> dict[str, str]:
    """Cheap identity of the weights: hashes of the adapter, sizes and times of the base."""
    found = {}
    for path in weight_files(base_of(opened.recipe)):
        status = path.stat()
        found[path.name] = f"{status.st_size} bytes of {status.st_mtime_ns}"
    if opened.kind == "run" and opened.home is not None:
        found |= trained_files(opened.home / "adapter")
    return found
