"""From what a user names on the command line to the images and questions they mean."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qvft.data.prompt import Kind
from qvft.data.rows import Row
from qvft.data.sample import ImageFile, Sample
from qvft.errors import DataError
from qvft.json_files import read_jsonl

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"}


def wanted_rows(names: Sequence[str], *, question: str | None = None) -> list[Row]:
    """One row an image and question, in the order named.

    Args:
        names: image files, folders (their images, sorted, folders below too), globs, and JSONL
            files whose rows have `image` (relative to the file) and perhaps `question` or
            `questions`. An `id` of a row or question becomes the id of its row here.
        question: asked about every image that brings none; None asks for captions.

    Raises:
        DataError: a name matches nothing, or a JSONL row has no image or an empty question.
    """
    rows: list[Row] = []
    for name in names:
        path = Path(name)
        if path.suffix.lower() in (".jsonl", ".json") and path.is_file():
            rows.extend(_from_jsonl(path, question))
            continue
        for image in _images(name):
            rows.append(_row(image, question))
    return rows


def _images(name: str) -> list[Path]:
    path = Path(name)
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
    elif path.is_file():
        found = [path]
    else:
        found = sorted(Path(match) for match in glob.glob(name, recursive=True))
    if not found:
        raise DataError(
            "matches no image",
            where=name,
            expected="an image, a folder of images, a glob or a JSONL file",
        )
    return found


def _from_jsonl(path: Path, question: str | None) -> list[Row]:
    rows: list[Row] = []
    for number, content in read_jsonl(path):
        where = f"{path}:{number}"
        image = content.get("image")
        if not isinstance(image, str) or not image:
            raise DataError('no "image"', where=where, expected="a path")
        own_id = _id_of(content, where=where)
        for text, text_id in _asked(content, question, where=where):
            rows.append(_row(path.parent / image, text, row_id=text_id or own_id))
    return rows


def _asked(
    content: Mapping[str, Any], default: str | None, *, where: str
) -> list[tuple[str | None, str]]:
    """The questions of a JSONL row with their own ids; `default` where it brings none."""
    listed = content.get("questions") or []
    if not isinstance(listed, list):
        raise DataError(
            f"questions that are a {type(listed).__name__}", where=where, expected="a list"
        )
    asked: list[tuple[Any, str]] = [
        (item.get("question"), _id_of(item, where=where)) if isinstance(item, dict) else (item, "")
        for item in listed
    ]
    if content.get("question") is not None:
        asked.append((content["question"], ""))
    for text, _ in asked:
        if not isinstance(text, str | None):
            raise DataError(f"a question that is a {type(text).__name__}", where=where)
        if not (text or "").strip():
            raise DataError("an empty question", where=where)
        if any("\ud800" <= character <= "\udfff" for character in text or ""):
            raise DataError("a question that is not valid Unicode", where=where)
    return asked or [(default, "")]


def _id_of(content: Mapping[str, Any], *, where: str) -> str:
    """The row's or question's own id as text; empty where it has none."""
    given = content.get("id")
    if given is not None and (isinstance(given, bool) or not isinstance(given, str | int)):
        raise DataError(f"an id that is a {type(given).__name__}", where=where, expected="a string")
    return "" if given is None else str(given)


def _row(image: Path, question: str | None, *, row_id: str = "") -> Row:
    sample = Sample(id=str(image), image=ImageFile(image))
    kind: Kind = "caption" if question is None else "question"
    return Row(row_id, sample, kind, question, "", (), {})
