"""Builds a recipe's datasets: samples from the `data` section."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from qvft.data.formats import find_format, read_samples
from qvft.data.images.decoding import ABSENT
from qvft.data.quality.image_signature import ImageSignature
from qvft.data.rows import training_rows
from qvft.data.sample import Sample
from qvft.data.stream import Stream
from qvft.data.text_cleaning import require_text_left
from qvft.data.validate_images import Skipped, validate_and_sign, validate_images
from qvft.errors import DataError, RecipeError
from qvft.json_files import sha256_json
from qvft.log import get_logger, heard
from qvft.recipe.data import LONGEST_NAME, Source, folder_name_problem
from qvft.recipe.schema import Recipe
from qvft.setup.given_data import MEMORY, given_samples
from qvft.setup.streaming import CHECKED, HEAD, is_streamed, stream_head, stream_of

REASONS = 8
FORMATS = "qvft.data.formats"
"""Name of the loggers by which formats say what they leave out."""
logger = get_logger("qvft.data")


@dataclass(frozen=True)
class Listed:
    """A split's samples, their images unchecked, and what the format said that it left out."""

    samples: list[Sample]
    remarks: tuple[str, ...]


Texts = Mapping[str, Listed]
"""A recipe's data by `train` and `eval`; none of what is streamed."""


@dataclass(frozen=True)
class Split:
    """A split as read: its usable samples, what was left out, and a hash of its texts.

    `signatures` are those of the images by name, where `inspect_split` has read them. Of a
    `stream`, `samples` are the first few, and the hash is the stream's own. `remarks` say what the
    format has left out.
    """

    name: str
    source: Source
    samples: list[Sample]
    skipped: list[Skipped]
    sha256: str
    signatures: Mapping[str, ImageSignature] = field(default_factory=dict)
    stream: Stream | None = None
    remarks: tuple[str, ...] = ()


def read_texts(recipe: Recipe, which: str) -> list[Sample]:
    """The samples of the recipe's `train` or `eval` data, their images unchecked.

    Raises:
        RecipeError: the recipe names no such data, or no path.
        DataError: what it names cannot be read, or cleaning leaves nothing of a text.
    """
    source: Source | None = getattr(recipe.data, which)
    if source is not None and source.format == MEMORY:
        return _checked(recipe, which, given_samples(which)[: source.limit])
    if source is None or source.path is None:
        raise RecipeError(
            "is not set", where=f"data.{which}.path", do=f"add data.{which}.path=YOUR_DATA"
        )
    find_format(source.format, where=f"data.{which}.format")
    samples = read_samples(
        source.format,
        source.path,
        split=source.split,
        images=source.images,
        questions=source.questions,
        annotations=source.annotations,
        columns=source.columns or None,
        allow_paths_outside_root=source.allow_paths_outside_root,
        limit=source.limit,
    )
    return _checked(recipe, which, samples)


def _checked(recipe: Recipe, which: str, samples: list[Sample]) -> list[Sample]:
    """The samples with as many captions as the recipe wants; raises DataError as `read_texts`."""
    source: Source = getattr(recipe.data, which)
    if source.captions_per_image is not None:
        kept = slice(source.captions_per_image)
        samples = [replace(sample, captions=sample.captions[kept]) for sample in samples]
    if recipe.data.text != "as_written":
        rows = training_rows(samples, texts=source.texts)
        # Evaluation compares with captions as they are written.
        read = [row for row in rows if which == "train" or row.kind == "question"]
        require_text_left(read, recipe.data.text, where=f"data.{which}")
    return samples


def listed(recipe: Recipe, which: str) -> Listed:
    """As `read_texts`, with what the format left out."""
    with heard(FORMATS) as remarks:
        samples = read_texts(recipe, which)
    return Listed(samples, tuple(remarks))


def read_split(recipe: Recipe, which: str, texts: Listed | None = None) -> Split:
    """The recipe's `train` or `eval` data, its images checked.

    Args:
        texts: from `listed`, where that has been called already.

    Raises:
        RecipeError, DataError: as `read_texts`, or no image is usable.
        ImageError: an image is unusable and `data.on_bad_image` is `error`.
    """
    if is_streamed(recipe, which):
        return _streamed(recipe)
    texts = texts or listed(recipe, which)
    samples = texts.samples
    source = getattr(recipe.data, which)
    logger.info("data.%s: checking the images of %d samples", which, len(samples))
    kept, skipped = validate_images(
        samples,
        on_error=recipe.data.on_bad_image,
        max_pixels=recipe.data.max_image_pixels,
        workers=max(1, recipe.data.num_workers),
    )
    if skipped:
        first = ", ".join(item.id for item in skipped[:5])
        logger.warning(
            "data.%s: %d of %d images are left out (data.on_bad_image: skip), first %s (%s: %s)",
            which,
            len(skipped),
            len(samples),
            first,
            skipped[0].name,
            skipped[0].reason,
        )
    if not kept:
        raise _no_image(which, skipped)
    name, sha256 = source_name(source), samples_hash(kept)
    return Split(name, source, kept, skipped, sha256, remarks=texts.remarks)


def inspect_split(recipe: Recipe, which: str, texts: Listed | None = None) -> Split:
    """The recipe's `train` or `eval` data with its images' signatures, for a check of the data.

    Unusable images are listed, all of them, whatever `data.on_bad_image` says.

    Args:
        texts: from `listed`, where that has been called already.

    Raises:
        RecipeError, DataError: as `read_texts`, or no image is usable.
    """
    if is_streamed(recipe, which):
        stream = stream_of(recipe)
        with heard(FORMATS) as said:
            samples, broken = stream_head(stream, CHECKED, seed=recipe.run.seed)
        remarks = tuple(said)
    else:
        texts = texts or listed(recipe, which)
        stream, samples, broken, remarks = None, texts.samples, [], texts.remarks
    source = getattr(recipe.data, which)
    logger.info("data.%s: looking at the images of %d samples", which, len(samples))
    kept, skipped, signatures = validate_and_sign(
        samples,
        max_pixels=recipe.data.max_image_pixels,
        workers=max(1, recipe.data.num_workers),
    )
    skipped = broken + skipped
    if not kept:
        raise _no_image(which, skipped)
    sha256 = samples_hash(kept) if stream is None else stream.sha256
    name = source_name(source)
    return Split(name, source, kept, skipped, sha256, signatures, stream, remarks)


def _streamed(recipe: Recipe) -> Split:
    """The stream of the training data and its first usable samples.

    Raises:
        DataError: none of the first is usable, or one is not and `data.on_bad_image` is `error`.
    """
    stream = stream_of(recipe)
    samples, broken = stream_head(stream, HEAD, seed=recipe.run.seed)
    if broken and recipe.data.on_bad_image == "error":
        first = broken[0]
        raise DataError(first.reason, where=first.name, expected=first.expected, do=first.do)
    kept, skipped = validate_images(
        samples, on_error=recipe.data.on_bad_image, max_pixels=recipe.data.max_image_pixels
    )
    if not kept:
        raise _no_image("train", broken + skipped)
    source = recipe.data.train
    assert source is not None, "what is streamed is named"
    return Split(source_name(source), source, kept, [], stream.sha256, stream=stream)


def _no_image(which: str, skipped: list[Skipped]) -> RecipeError:
    """Names the reasons and the first path: mostly the folder is wrong."""
    where = f"data.{which}"
    if not skipped:
        return RecipeError("no usable image is left (there is no sample)", where=where)
    reasons = Counter(re.sub(r"\d+", "N", one.reason) for one in skipped)
    listed = [f"{count:,} x {reason}" for reason, count in reasons.most_common(REASONS)]
    if len(reasons) > REASONS:
        listed.append(f"... and {len(reasons) - REASONS:,} more reasons")
    first = skipped[0]
    name = Path(first.name).absolute() if first.reason == ABSENT else first.name
    return RecipeError(
        f"no usable image is left ({'; '.join(listed)}); the first is {name}",
        where=where,
        do=f"check {where}.path and {where}.images",
    )


def source_name(source: Source) -> str:
    """What a report and its folder call a split: DATASET-SPLIT."""
    if source.name:
        return source.name
    path = Path(source.path or source.format)
    stem = path.stem if path.suffix else path.name
    if stem == "..":
        stem = path.resolve().name
    parts = [part for part in (stem or source.format, source.split) if part]
    plain = re.sub(r"[{}*?\[\]=]", "", "-".join(parts))  # of ranges and patterns of shards
    return _one_folder(re.sub(r"[\s,/\\\x00-\x1f\x7f]", "_", plain)) or source.format


def _one_folder(name: str) -> str:
    """A name as one folder may have it; of a long one the beginning, and a hash of all of it."""
    name = name.strip(". ")
    if not name or folder_name_problem(name) is None:
        return name
    digest = hashlib.sha256(name.encode(errors="replace")).hexdigest()[:8]
    return f"{name[: LONGEST_NAME // 2]}-{digest}"


def samples_hash(samples: list[Sample]) -> str:
    """Hex SHA-256 over the ids, image names and texts of a split."""
    digest = hashlib.sha256()
    for sample in samples:
        questions = [[q.id, q.text, list(q.answers)] for q in sample.questions]
        name = Path(sample.image.name).name
        digest.update(sha256_json([sample.id, name, sample.captions, questions]).encode())
    return digest.hexdigest()
