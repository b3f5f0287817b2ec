"""Builds a recipe's datasets: samples from the `data` section."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from qvft.data.formats.format_table import find_format, read_samples
from qvft.data.images.decoding import ABSENT
from qvft.data.images.dicom import dicom_remarks
from qvft.data.quality.near_duplicates import ImageSignature
from qvft.data.rows import preference_rows, training_rows
from qvft.data.sample import Origin, Sample
from qvft.data.stream import Stream
from qvft.data.text_cleaning import require_text_left
from qvft.data.validate_images import Skipped, validate_and_sign, validate_images
from qvft.errors import DataError, RecipeError
from qvft.json_files import sha256_json
from qvft.log import collected_warnings, get_logger
from qvft.recipe.schema import Recipe
from qvft.recipe.source import Source
from qvft.setup.given_data import MEMORY, given_samples
from qvft.setup.source_names import require_names, source_name, split_source
from qvft.setup.streaming import CHECKED, HEAD, is_streamed, origin_of, stream_head, stream_of

REASONS = 8
"""Maximum number of reasons in a message."""
FORMATS = "qvft.data.formats"
"""Name of the loggers through which formats report skipped records."""
logger = get_logger("qvft.data")


@dataclass(frozen=True)
class Listed:
    """A split's samples, the format's warnings, and the samples that are skipped because of their
    images, None if images are unchecked.
    """

    samples: list[Sample]
    remarks: tuple[str, ...]
    skipped: list[Skipped] | None = None


Texts = Mapping[str, Listed]
"""A recipe's data by `train` and `eval`, without streamed data."""


@dataclass(frozen=True)
class Split:
    """A split: its usable samples, the skipped ones, and a hash of its texts.

    `signatures` are by image name, if read by `inspect_split`. For a `stream`, `samples` are the
    first few, and the hash is the stream's. `remarks` are the format's warnings.
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
    """Samples of the recipe's `train` or `eval` data, with unchecked images.

    Those of a list of sources have the texts that are used, and ids that begin with their source's
    name.

    Raises:
        RecipeError: the recipe has no such data, or no path, or two sources have the same name.
        DataError: the data cannot be read, or a text is empty after cleaning.
    """
    sources = dict(recipe.data.sources(which))
    if not recipe.data.lists(which):
        return _texts_of(recipe, which, sources.get(which))
    require_names(recipe, which)
    return [
        _of_source(sample, source)
        for key, source in sources.items()
        for sample in _texts_of(recipe, key, source)
    ]


def _texts_of(recipe: Recipe, which: str, source: Source | None) -> list[Sample]:
    """Samples of one source, whose key path below `data` is `which`."""
    if source is not None and source.format == MEMORY:
        return _checked(recipe, which, source, given_samples(which)[: source.limit])
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
        class_texts=source.class_texts or None,
        allow_paths_outside_root=source.allow_paths_outside_root,
        limit=source.limit,
    )
    return _checked(recipe, which, source, samples)


def _checked(recipe: Recipe, which: str, source: Source, samples: list[Sample]) -> list[Sample]:
    """The samples with the recipe's number of captions, and the source's settings; raises DataError
    as `read_texts`.
    """
    own = origin_of(source)
    if own != Origin():
        samples = [replace(sample, origin=own) for sample in samples]
    if source.captions_per_image is not None:
        kept = slice(source.captions_per_image)
        samples = [replace(sample, captions=sample.captions[kept]) for sample in samples]
    if recipe.data.text != "as_written":
        rows = training_rows(samples, texts=source.texts)
        rows += preference_rows(samples, texts=source.texts)
        # Evaluation compares with unmodified captions.
        read = [row for row in rows if which.startswith("train") or row.kind == "question"]
        require_text_left(read, recipe.data.text, where=f"data.{which}")
    return samples


def listed(recipe: Recipe, which: str) -> Listed:
    """As `read_texts`, with the format's warnings."""
    with collected_warnings(FORMATS) as remarks:
        samples = read_texts(recipe, which)
    return Listed(samples, tuple(remarks))


def read_split(recipe: Recipe, which: str, texts: Listed | None = None) -> Split:
    """The recipe's `train` or `eval` data, with checked images.

    Args:
        texts: from `listed`, if already read.

    Raises:
        RecipeError, DataError: as `read_texts`, or no image is usable.
        ImageError: an image is unusable and `data.on_bad_image` is `error`.
    """
    if is_streamed(recipe, which):
        return _streamed(recipe)
    texts = texts or listed(recipe, which)
    samples = texts.samples
    if texts.skipped is not None:
        return _split(recipe, which, samples, texts.skipped, remarks=texts.remarks)
    logger.info("data.%s: checking the images of %d samples", which, len(samples))
    kept, skipped = validate_images(
        samples,
        on_error=recipe.data.on_bad_image,
        max_pixels=recipe.data.max_image_pixels,
    )
    if skipped:
        first = ", ".join(item.id for item in skipped[:5])
        logger.warning(
            "data.%s: %d of %d images are skipped (data.on_bad_image: skip), first %s (%s: %s)",
            which,
            len(skipped),
            len(samples),
            first,
            skipped[0].name,
            skipped[0].reason,
        )
    return _split(recipe, which, kept, skipped, remarks=texts.remarks)


def inspect_split(recipe: Recipe, which: str, texts: Listed | None = None) -> Split:
    """The recipe's `train` or `eval` data with image signatures, for data checks.

    All unusable images are listed, regardless of `data.on_bad_image`.

    Args:
        texts: from `listed`, if already read.

    Raises:
        RecipeError, DataError: as `read_texts`, or no image is usable.
    """
    stream: Stream | None = None
    broken: list[Skipped] = []
    if is_streamed(recipe, which):
        stream = stream_of(recipe)
        with collected_warnings(FORMATS) as remarks:
            samples, broken = stream_head(stream, CHECKED, seed=recipe.run.seed)
        texts = Listed(samples, tuple(remarks))
    texts = texts or listed(recipe, which)
    samples = texts.samples
    logger.info("data.%s: looking at the images of %d samples", which, len(samples))
    kept, skipped, signatures = validate_and_sign(
        samples,
        max_pixels=recipe.data.max_image_pixels,
    )
    return _split(
        recipe, which, kept, broken + skipped, signatures, stream=stream, remarks=texts.remarks
    )


def _streamed(recipe: Recipe) -> Split:
    """The stream of the training data and its first usable samples.

    Raises:
        DataError: none of the first samples is usable, or one is not and `data.on_bad_image` is
            `error`.
    """
    stream = stream_of(recipe)
    samples, broken = stream_head(stream, HEAD, seed=recipe.run.seed)
    if broken and recipe.data.on_bad_image == "error":
        first = broken[0]
        raise DataError(first.reason, where=first.name, expected=first.expected, do=first.do)
    kept, skipped = validate_images(
        samples, on_error=recipe.data.on_bad_image, max_pixels=recipe.data.max_image_pixels
    )
    return _split(recipe, "train", kept, broken + skipped, stream=stream)


def _split(
    recipe: Recipe,
    which: str,
    kept: list[Sample],
    skipped: list[Skipped],
    signatures: Mapping[str, ImageSignature] | None = None,
    *,
    stream: Stream | None = None,
    remarks: tuple[str, ...] = (),
) -> Split:
    """A split of usable samples; raises RecipeError with the reasons if there are none."""
    source, where = split_source(recipe, which), f"data.{which}"
    if kept:
        dicom = dicom_remarks(sample.image for sample in kept)
        remarks = (*remarks, *(f"{where}: {one}" for one in dicom))
        sha256 = samples_hash(kept) if stream is None else stream.sha256
        name = source_name(source)
        return Split(name, source, kept, skipped, sha256, signatures or {}, stream, remarks)
    if not skipped:
        raise RecipeError("no usable image is left (there is no sample)", where=where)
    reasons = Counter(re.sub(r"\d+", "N", one.reason) for one in skipped)
    listed = [f"{count:,} x {reason}" for reason, count in reasons.most_common(REASONS)]
    if len(reasons) > REASONS:
        listed.append(f"... and {len(reasons) - REASONS:,} more reasons")
    first = skipped[0]
    path = Path(first.name).absolute() if first.reason == ABSENT else first.name
    raise RecipeError(
        f"no usable image is left ({'; '.join(listed)}); the first is {path}",
        where=where,
        # Usually the folder is wrong.
        do=f"check {where}.path and {where}.images" if first.reason == ABSENT else first.do,
    )


def _of_source(sample: Sample, source: Source) -> Sample:
    """A sample in a list of sources: with the texts that the source uses, and ids of its own."""
    name = source_name(source)

    def own(one: Any) -> Any:
        return replace(one, id=f"{name}/{one.id}")

    captions, questions, pairs = sample.captions, sample.questions, sample.pairs
    if source.texts == "questions":
        captions, pairs = (), tuple(one for one in pairs if one.question is not None)
    if source.texts == "captions":
        questions, pairs = (), tuple(one for one in pairs if one.question is None)
    return replace(
        own(sample),
        captions=captions,
        questions=tuple(map(own, questions)),
        pairs=tuple(map(own, pairs)),
        origin=replace(sample.origin, name=name),
    )


def samples_hash(samples: list[Sample]) -> str:
    """Hex SHA-256 over the ids, image names and texts of a split."""
    digest = hashlib.sha256()
    for sample in samples:
        questions = [[q.id, q.text, list(q.answers)] for q in sample.questions]
        name = Path(sample.image.name).name
        texts: list[Any] = [sample.id, name, sample.captions, questions]
        if sample.pairs:  # without them the hash is that of earlier versions
            texts.append([[p.id, p.question, p.chosen, p.rejected] for p in sample.pairs])
        digest.update(sha256_json(texts).encode())
    return digest.hexdigest()
