"""The table of dataset formats, and reading samples by a format's name.

To add a format, add a file here with its `FORMAT`, and a line to the table. A format of another
package is given by the dotted name of its `Format` (`my_package.my_format`), or added with
`register_format`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

from qvft.data.formats import (
    class_folders,
    coco_captions,
    conversations,
    csv_table,
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
from qvft.data.formats.format import Format
from qvft.data.formats.sample_builder import Unique, image_folder
from qvft.data.sample import Sample
from qvft.data.stream import Stream
from qvft.dotted_names import import_dotted, is_dotted
from qvft.errors import DataError, QvftError
from qvft.files import given_path

FORMATS: dict[str, Format] = {
    one.name: one
    for one in (
        jsonl.FORMAT,
        csv_table.FORMAT,
        class_folders.FORMAT,
        conversations.LLAVA,
        conversations.SHAREGPT,
        coco_captions.FORMAT,
        karpathy.FORMAT,
        vqa_v2.FORMAT,
        vqa_rad.FORMAT,
        slake.FORMAT,
        pathvqa.FORMAT,
        replace(hf.FORMAT, stream=hf_stream.stream),
        tar.FORMAT,
    )
}

_PATHS = ("images", "questions", "annotations")


def register_format(format: Format) -> Format:
    """Adds a format, so that recipes can name it; raises ValueError if another has the name."""
    if FORMATS.get(format.name, format) is not format:
        raise ValueError(f"a format is called {format.name!r} already")
    FORMATS[format.name] = format
    return format


def find_format(name: str, *, where: str = "format") -> Format:
    """The format of this name; a dotted name is imported and added to the table.

    Raises RecipeError for a dotted name that is not a `Format`, DataError for another unknown name.
    """
    if name not in FORMATS and is_dotted(name):
        FORMATS[name] = import_dotted(name, Format, where=where)
    if name not in FORMATS:
        raise DataError(
            f"unknown format `{name}`",
            where=where,
            expected="one of " + ", ".join(FORMATS) + ", or package.module.name of your own",
            do=nearest(name, FORMATS),
        )
    return FORMATS[name]


def read_samples(
    format: str, path: str, *, limit: int | None = None, **options: Any
) -> list[Sample]:
    """The samples of a split, in the source's order; images are not decoded.

    Args:
        format: a key of `FORMATS`, or the dotted name of a `Format`.
        path: file or folder, or other input of the format; relative to the working directory.
        limit: only the first `limit` images.
        options: as in `Format`; paths as text. None and what is empty counts as not given.

    Raises:
        DataError: unknown format, unsupported option, nothing to read, or invalid data.
    """
    reader = find_format(format)
    given = _given_options(reader, **options)
    if "images" in given:
        image_folder(given["images"])
    if limit is not None and limit < 1:
        raise DataError(f"`limit` is {limit}", expected="at least 1")
    with _readable(path):
        found = reader.read(given_path(path), **given)
        samples = list(islice(found, None if limit is None else min(limit, sys.maxsize)))
    if not samples:
        of_split = f" of split `{given['split']}`" if "split" in given else ""
        do = "check the path and the split"
        raise DataError(f"no samples{of_split}", where=path, expected="at least one image", do=do)
    require_unique(samples, where=path)
    return samples


def open_stream(
    format: str, path: str, *, split: str | None = None, columns: Mapping[str, str] | None = None
) -> Stream:
    """Opens data for streaming; arguments as `read_samples`. Raises DataError for a format without
    streaming, or nothing to read.
    """
    reader = find_format(format)
    if reader.stream is None:
        raise DataError(
            f"format {format} is streamed",
            where=path,
            expected="one of " + ", ".join(name for name, one in FORMATS.items() if one.stream),
            do="remove `stream`, or pack the data as tar shards",
        )
    options = _given_options(reader, split=split, columns=columns)
    with _readable(path):
        return reader.stream(given_path(path), **options)


def _given_options(format: Format, **options: Any) -> dict[str, Any]:
    """The options that are set; raises DataError for one that the format does not take."""
    given = {
        option: given_path(str(value)) if option in _PATHS else value
        for option, value in options.items()
        if value or (value is False and option in format.options)
    }
    for option in given:
        if option not in format.options:
            raise DataError(
                f"`{option}` is set for format {format.name}",
                expected="only " + (", ".join(format.options) or "path"),
                do=f"remove `{option}`",
            )
    return given


@contextmanager
def _readable(path: str) -> Iterator[None]:
    try:
        yield
    except QvftError:  # some are OSErrors too
        raise
    except OSError as error:
        given = f"cannot be read ({error.strerror or error})"
        raise DataError(given, where=path, do="check the path") from error


def require_unique(samples: list[Sample], *, where: str) -> None:
    """Raises DataError where two samples, two questions or two pairs have the same id."""
    sample_ids, question_ids = Unique("id of a sample"), Unique("id of a question")
    pair_ids = Unique("id of a pair")
    for sample in samples:
        sample_ids.add(sample.id, where=f"{where}, image {sample.image.name}")
        for question in sample.questions:
            question_ids.add(question.id, where=f"{where}, image {sample.image.name}")
        for pair in sample.pairs:
            pair_ids.add(pair.id, where=f"{where}, image {sample.image.name}")
