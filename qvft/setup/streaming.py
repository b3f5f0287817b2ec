"""Opens a recipe's streamed training data and reads its first records."""

from __future__ import annotations

from itertools import islice

from qvft.data.formats.format_table import open_stream
from qvft.data.sample import Origin, Sample
from qvft.data.stream import Part, Stream
from qvft.data.text_cleaning import TextsLeft
from qvft.data.validate_images import Skipped
from qvft.errors import DataError, RecipeError
from qvft.recipe.schema import Recipe
from qvft.recipe.source import Source

HEAD = 64
"""Records read for checks before training."""
CHECKED = 1000
"""Records of a stream read by `qvft.check`."""


def is_streamed(recipe: Recipe, which: str) -> bool:
    """Whether the recipe streams this data."""
    return any(source.stream for _, source in recipe.data.sources(which))


def stream_of(recipe: Recipe) -> Stream:
    """The training data as a stream; raises RecipeError without a path, DataError if empty."""
    source = dict(recipe.data.sources("train")).get("train")
    if source is None or source.path is None:
        raise RecipeError(
            "is not set", where="data.train.path", do="add data.train.path=YOUR_SHARDS"
        )
    paths = ("images", "questions", "annotations", "allow_paths_outside_root")
    for key in (*paths, "class_texts", "captions_per_image"):
        if getattr(source, key):
            raise RecipeError("has no use for a stream", where=f"data.train.{key}", do="remove it")
    stream = open_stream(
        source.format, source.path, split=source.split, columns=source.columns or None
    )
    return TextsLeft(stream, source.texts, recipe.data.text, origin_of(source))


def origin_of(source: Source) -> Origin:
    """The settings of a source that its samples carry."""
    return Origin("", source.prompt.caption, source.prompt.question, source.answers)


def stream_head(stream: Stream, count: int, *, seed: int) -> tuple[list[Sample], list[Skipped]]:
    """The first records of the data in order: samples, and errors of broken records."""
    samples: list[Sample] = []
    broken: list[Skipped] = []
    first = stream.samples(Part(0, seed, 0, 1, shuffled=False))
    for found in islice(first, count):
        if isinstance(found, DataError):
            name = found.where or "?"
            broken.append(Skipped(name, found.given, name, found.expected, found.do))
        else:
            samples.append(found)
    return samples, broken
