"""The rows of a dataset for which pairs are made, and the samples that hold the pairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from qvft.data.formats.format_table import read_samples
from qvft.data.rows import Row, evaluation_rows
from qvft.data.sample import Pair, Sample
from qvft.errors import RecipeError
from qvft.models.model_path import TINY_ID
from qvft.recipe.load import parse_recipe
from qvft.recipe.source import Source
from qvft.setup.data import read_split
from qvft.setup.given_data import MEMORY
from qvft.setup.resolve_model import ResolvedModel


def source_of(given: Mapping[str, Any]) -> Source:
    """The data with these keys of a recipe's `data.train`; raises RecipeError for a bad value."""
    content = {"name": "pairs", "model": {"id": TINY_ID}, "data": {"train": dict(given)}}
    source = parse_recipe(content).data.train
    assert isinstance(source, Source), "given above"
    return source


def rows_for(
    opened: ResolvedModel, source: Source | None, changes: Mapping[str, Any] | None = None
) -> list[Row]:
    """One row per image with its captions, and one per question; their images are checked.

    Args:
        opened: the model; data settings such as `data.on_bad_image` are its recipe's.
        source: the data; None: the model's training data.
        changes: keys of the training data to override, e.g. `limit`.

    Raises:
        RecipeError: there is no data, or a run had it in memory.
        DataError, ImageError: as `read_split`.
    """
    data = opened.recipe.data
    found = [source] if source else [one for _, one in data.sources("train")]
    if not found or any(one.path is None or one.format == MEMORY for one in found):
        raise RecipeError(
            "has no training data of its own" if not found else "was trained on data in memory",
            where=opened.name,
            do="name the data with --data",
        )
    listed = [one.model_copy(update={"stream": False, **(changes or {})}) for one in found]
    train = {"train": listed if len(listed) > 1 else listed[0]}
    recipe = opened.recipe.model_copy(update={"data": data.model_copy(update=train)})
    split = read_split(recipe, "train")
    return evaluation_rows(split.samples, texts=split.source.texts)


def rows_of(source: Source) -> list[Row]:
    """As `rows_for`, without a model; images are not checked.

    Raises:
        DataError: as `read_samples`.
    """
    samples = read_samples(
        source.format,
        source.path or "",
        split=source.split,
        images=source.images,
        columns=source.columns or None,
        class_texts=source.class_texts or None,
        limit=source.limit,
        allow_paths_outside_root=source.allow_paths_outside_root,
    )
    return evaluation_rows(samples, texts=source.texts)


def samples_with(pairs: Iterable[tuple[Row, Pair]]) -> list[Sample]:
    """The samples of rows, in order, with these pairs as their only texts."""
    found: dict[str, Sample] = {}
    for row, pair in pairs:
        before = found.get(row.sample.id)
        sample = before or replace(row.sample, captions=(), questions=(), pairs=())
        found[sample.id] = replace(sample, pairs=(*sample.pairs, pair))
    return list(found.values())
