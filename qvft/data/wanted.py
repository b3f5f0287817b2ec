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
from qvft.files import read_jsonl

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"}


def wanted_rows(names: Sequence[str], *, question: str | None = None) -> list[Row]:
    """One row an image and question, in the order named.

    Args:
        names: image files, folders (their images, sorted, folders below too), globs, and JSONL
            files whose rows have `image` (relative to the file) and perhaps `question` or
            `questions`.
        question: asked about every image that brings none; None asks for captions.

    Raises:
        DataError: a name matches nothing, or a JSONL row has no image or an empty question.
    """
    rows: list[Row] = []
    for name in names:
        path = Path(name)
        if path.suffix in (".jsonl", ".json") and path.is_file():
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
        image = content.get("image")
        if not isinstance(image, str) or not image:
            raise DataError('no "image"', where=f"{path}:{number}", expected="a path")
        for text in _asked(content, question, where=f"{path}:{number}"):
            rows.append(_row(path.parent / image, text))
    return rows


def _asked(content: Mapping[str, Any], default: str | None, *, where: str) -> list[str | None]:
    """The questions of a JSONL row; `default` where it brings none."""
    listed = content.get("questions") or []
    if not isinstance(listed, list):
        raise DataError(
            f"questions that are a {type(listed).__name__}", where=where, expected="a list"
        )
    texts = [item.get("question") if isinstance(item, dict) else item for item in listed]
    if content.get("question") is not None:
        texts.append(content["question"])
    for text in texts:
        if not isinstance(text, str | None):
            raise DataError(f"a question that is a {type(text).__name__}", where=where)
        if not (text or "").strip():
            raise DataError("an empty question", where=where)
    return texts or [default]


def _row(image: Path, question: str | None) -> Row:
    sample = Sample(id=str(image), image=ImageFile(image))
    kind: Kind = "caption" if question is None else "question"
    return Row(str(image), sample, kind, question, "", (), {})
