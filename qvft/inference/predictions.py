"""`qvft predict`: parses GenerationConfig fields, and says how texts are made and by what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from qvft.adapters.manifest import fingerprints
from qvft.data.rows import Row
from qvft.errors import RecipeError
from qvft.inference.generation_config import check_fields
from qvft.inference.generation_trial import tried_fields
from qvft.inference.log_probs import Scoring
from qvft.inference.predict import Outcome
from qvft.inference.prediction_file import Predictions
from qvft.inference.vision_language_model import VisionLanguageModel
from qvft.json_files import sha256_json
from qvft.models.weight_files import weight_files
from qvft.recipe.yaml_text import yaml_override_value
from qvft.setup.model import base_of
from qvft.setup.resolve_model import ResolvedModel


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


def predictions(
    opened: ResolvedModel,
    rows: Sequence[Row],
    fields: Mapping[str, Any],
    *,
    batch_size: int,
    workers: int,
    seed: int | None = None,
    scoring: Scoring = Scoring(),  # noqa: B008  # frozen
) -> Predictions:
    """Texts of a model for rows; its weights are loaded when they are computed.

    Args:
        fields: `GenerationConfig` fields, override the model's.
        workers: processes that decode images.
        seed: seed of sampling; None: the recipe's.

    Raises:
        UserError: the model does not fit, or a field's value is refused.
    """
    data = opened.recipe.data
    candidates = [list(row.candidates) for row in rows]
    settings = {
        **identity(opened),
        "prompt": data.prompt.recorded(),
        "text": data.text,
        "decoding": tried_fields(opened.recipe, base_of(opened.recipe), fields, proven=True),
        # None by default, as in files of earlier versions.
        "preprocessing": None if data.preprocessing == "checkpoint" else data.preprocessing,
        "seed": seed,
        "scoring": None if scoring == Scoring() else asdict(scoring),
        "candidates": sha256_json(candidates) if scoring.rank_by else None,
    }

    def outcomes_of(remaining: Sequence[Row]) -> Iterator[Outcome]:
        model = VisionLanguageModel(opened)
        torch.manual_seed(opened.recipe.run.seed if seed is None else seed)
        return model.outcomes(
            remaining, fields, batch_size=batch_size, workers=workers, scoring=scoring
        )

    return Predictions(rows, settings, outcomes_of)


def identity(opened: ResolvedModel) -> dict[str, Any]:
    """Identity of a model in an output file's settings, so that rows of two models never mix."""
    weights = {}  # sizes and times of the base's files, hashes of the adapter's
    for path in weight_files(base_of(opened.recipe)):
        status = path.stat()
        weights[path.name] = f"{status.st_size} bytes of {status.st_mtime_ns}"
    if opened.kind == "run" and opened.home is not None:
        weights |= fingerprints(opened.home / "adapter")
    path = Path(opened.name)
    name = str(path.resolve()) if path.exists() else opened.name
    return {"model": name, "weights": weights}
