"""From a format's name and a path to samples: the one table of formats."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from qvft.data.formats import (
    coco_captions,
    hf,
    hf_stream,
    jsonl,
    karpathy,
    pathvqa,
    slake,
    tar,
    vqa_rad,
    vqa_v2,
)
from qvft.data.formats.fields import nearest
from qvft.data.formats.sample_builder import Unique
from qvft.data.sample import Sample
from qvft.data.stream import Stream
from qvft.errors import DataError, QvftError
from qvft.files import given_path


@dataclass(frozen=True)
class Format:
    """An adapter and which of `read_samples`' options it takes."""

    read: Callable[..., Iterator[Sample]]
    options: tuple[str, ...]


FORMATS: dict[str, Format] = {
    "jsonl": Format(jsonl.read, ("split", "images", "allow_outside")),
    "coco_captions": Format(coco_captions.read, ("split", "images", "allow_outside")),
    "karpathy": Format(karpathy.read, ("split", "images", "allow_outside")),
    "vqa_v2": Format(vqa_v2.read, ("split", "questions", "annotations", "images", "allow_outside")),
    "vqa_rad": Format(vqa_rad.read, ("split", "images", "allow_outside")),
    "slake": Format(slake.read, ("split", "images", "allow_outside")),
    "pathvqa": Format(pathvqa.read, ("split", "images", "allow_outside")),
    "hf": Format(hf.read, ("split", "columns", "allow_outside")),
    "tar": Format(tar.read, ("split",)),
}

STREAMS: Mapping[str, Callable[..., Stream]] = {"tar": tar.stream, "hf": hf_stream.stream}
"""What can be passed over instead of listed."""


def read_samples(
    format: str,
    path: str,
    *,
    split: str | None = None,
    images: str | None = None,
    questions: str | None = None,
    annotations: str | None = None,
    columns: Mapping[str, str] | None = None,
    allow_outside: bool = False,
    limit: int | None = None,
) -> list[Sample]:
    """The samples of a split, in the source's order; no image is decoded.

    Args:
        format: a key of `FORMATS`.
        path: file or folder, or what else the format reads; relative ones to the working folder.
        split: which split, where the format has several.
        images: the image folder, where it lies apart.
        questions: VQA v2's question file, where it lies apart.
        annotations: VQA v2's annotation file, where it lies apart.
        columns: column names, for `hf`.
        allow_outside: images may lie outside the image folder (that of `path`, or `images`).
        limit: this many images only, from the first on.

    Raises:
        DataError: unknown format, an option that the format does not take, nothing to read, or
            whatever the adapter finds wrong.
    """
    if format not in FORMATS:
        raise DataError(
            f"unknown format `{format}`",
            expected="one of " + ", ".join(FORMATS),
            do=nearest(format, FORMATS),
        )
    folders = {"images": images, "questions": questions, "annotations": annotations}
    given: dict[str, Any] = {
        key: given_path(value) for key, value in folders.items() if value is not None
    }
    given |= {"split": split} if split is not None else {}
    given |= {"columns": columns} if columns else {}
    given |= {"allow_outside": True} if allow_outside else {}
    _require_options(format, given)
    if images is not None and not given["images"].is_dir():
        is_file = given["images"].exists()
        raise DataError(
            "a file" if is_file else "no such folder",
            where=images,
            expected="the folder of the images",
            do="check `images`",
        )
    if limit is not None and limit < 1:
        raise DataError(f"`limit` is {limit}", expected="at least 1")
    found = FORMATS[format].read(given_path(path), **given)
    try:
        samples = list(islice(found, None if limit is None else min(limit, sys.maxsize)))
    except QvftError:  # some are OSErrors too
        raise
    except OSError as error:
        raise _unreadable(error, path) from error
    if not samples:
        raise DataError(
            "no samples" + (f" of split `{split}`" if split else ""),
            where=path,
            expected="at least one image",
            do="check the path and the split",
        )
    _require_unique(samples, where=path)
    return samples


def open_stream(
    format: str,
    path: str,
    *,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> Stream:
    """Data that is passed over; arguments as `read_samples`.

    Raises:
        DataError: a format that is only listed, or nothing to read.
    """
    if format not in STREAMS:
        raise DataError(
            f"format {format} is streamed",
            where=path,
            expected="one of " + ", ".join(STREAMS),
            do="remove `stream`, or pack the data as tar shards",
        )
    options = {"split": split, "columns": columns}
    given = {key: value for key, value in options.items() if value is not None}
    _require_options(format, given)
    try:
        return STREAMS[format](given_path(path), **given)
    except QvftError:  # some are OSErrors too
        raise
    except OSError as error:
        raise _unreadable(error, path) from error


def _require_options(format: str, given: Iterable[str]) -> None:
    taken = FORMATS[format].options
    for option in given:
        if option not in taken:
            raise DataError(
                f"`{option}` is set for format {format}",
                expected="only " + ", ".join(taken),
                do=f"remove `{option}`",
            )


def _unreadable(error: OSError, path: str) -> DataError:
    return DataError(f"cannot be read ({error.strerror or error})", where=path, do="check the path")


def _require_unique(samples: list[Sample], *, where: str) -> None:
    sample_ids, question_ids = Unique("id of a sample"), Unique("id of a question")
    for sample in samples:
        sample_ids.add(sample.id, where=f"{where}, image {sample.image.name}")
        for question in sample.questions:
            question_ids.add(question.id, where=f"{where}, image {sample.image.name}")
