"""Several texts per prompt from a predictions file, matched with the rows of a dataset."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from qvft.data.formats import fields
from qvft.data.formats.fields import Record
from qvft.data.formats.path_guard import PathGuard
from qvft.data.quality.texts import normal
from qvft.data.rows import Row
from qvft.errors import DataError
from qvft.json_files import read_jsonl
from qvft.log import get_logger

logger = get_logger("qvft.pairs")

Key = tuple[str, str]


def texts_of_file(path: Path, rows: Sequence[Row]) -> dict[str, list[str]]:
    """The texts of a file by row id, in its order; lines of one row are joined.

    A line has `texts` (a list), or one `text` or `prediction`, as `qvft predict` and `qvft eval`
    write them. It belongs to the row with its `id`, else to that with its `image` and `question`;
    lines that belong to none are left out, with a warning, and lines with an `error` without.

    Raises:
        DataError: an invalid line, or no line belongs to any row.
    """
    by_id = {row.id: row for row in rows}
    by_image: dict[Key, Row] = {}
    for row in rows:
        by_image.setdefault(_key(row.sample.image.name, row.question), row)
    found: dict[str, list[str]] = {}
    lines, strangers = 0, []
    for line, image in _lines(path):
        lines += 1
        question = line.text("question") if line.get("question") is not None else None
        known = by_id.get(str(line.get("id"))) or by_image.get(_key(str(image), question))
        if known is None:
            strangers.append(line.where)
        else:
            found.setdefault(known.id, []).extend(_texts(line))
    if not found:
        raise DataError(
            "no line belongs to a row of the data" if lines else "no texts",
            where=str(path),
            expected="lines with the `id`, or the `image` and `question`, of the data's rows",
            do="name the data that the predictions were made on with --data",
        )
    if strangers:
        logger.warning(
            "%d of %d lines belong to no row of the data and are left out, first %s",
            len(strangers),
            lines,
            strangers[0],
        )
    return found


def _lines(path: Path) -> Iterator[tuple[Record, Path]]:
    """Each line with the path of its image."""
    guard = PathGuard(path.parent, allow_paths_outside_root=True)
    for number, values in read_jsonl(path):
        line = Record(values, f"{path}:{number}")
        if "error" in line:
            continue
        written = line.text("image")
        # `qvft predict` writes paths from the working folder, JSONL files from their own.
        image = Path(written)
        if not image.exists():
            image = guard.image(written, "image", where=line.where).path
        yield line, image


def _texts(line: Record) -> list[str]:
    key = next((key for key in ("texts", "text", "prediction") if key in line), None)
    if key is None:
        raise DataError(
            "no `texts`",
            where=line.where,
            expected="`texts`, `text` or `prediction`",
            do="write several with qvft predict --num_return_sequences 8 --do_sample true",
        )
    given: Any = line[key] if key == "texts" else [line[key]]
    if not isinstance(given, list):
        raise DataError(f"`texts` is {fields.kind(given)}", where=line.where, expected="a list")
    return [fields.string(text, key, where=line.where) for text in given]


def _key(image: str, question: str | None) -> Key:
    return os.path.realpath(image), "" if question is None else normal(question)
