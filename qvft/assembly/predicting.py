"""From images and a model to lines of JSON, as they come."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ruamel.yaml import YAML

from qvft.assembly.generation import check_fields, generation_fields
from qvft.assembly.opening import load_opened, open_target
from qvft.data.rows import Row
from qvft.data.usable import usable
from qvft.errors import RecipeError
from qvft.evaluation.predict import predict_rows


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


def predict_images(
    model: str, wanted: Sequence[Row], fields: Mapping[str, Any], *, batch_size: int, workers: int
) -> Iterator[str]:
    """One line of JSON a wanted row: `image`, `question` where asked, and `text` or `error`.

    Args:
        model: run folder, model folder or hub id.
        wanted: from `wanted_rows`.
        fields: `GenerationConfig` fields laid over the run's own decoding.
        batch_size: rows decoded together.
        workers: processes that decode images.

    A broken image gives its rows an `error`; it never stops the others. The model is opened and
    loaded before the first line is asked for.

    Raises:
        UserError: the model is not there or does not fit.
    """
    opened = open_target(model)
    limit = opened.recipe.data.max_image_pixels
    samples = list({row.sample.id: row.sample for row in wanted}.values())
    _, broken = usable(samples, on_error="skip", max_pixels=limit, workers=max(1, workers))
    reasons = {skipped.id: skipped.reason for skipped in broken}
    lines = (_line(row, error=reasons[row.sample.id]) for row in wanted if row.sample.id in reasons)
    rows = [row for row in wanted if row.sample.id not in reasons]
    if not rows:
        return lines
    loaded = load_opened(opened)
    generation = {
        kind: {**settings, **fields} for kind, settings in generation_fields(opened.recipe).items()
    }
    texts = predict_rows(
        loaded.model,
        loaded.collator,
        rows,
        generation=generation,
        batch_size=batch_size,
        workers=workers,
    )
    return itertools.chain(lines, (_line(rows[index], text=text) for index, text in texts))


def _line(row: Row, **outcome: str) -> str:
    asked = {} if row.question is None else {"question": row.question}
    return json.dumps({"image": row.sample.image.name, **asked, **outcome}, ensure_ascii=False)
