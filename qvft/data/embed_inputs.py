"""Resolves the command line's inputs of `qvft embed` to images or texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from qvft.data.predict_inputs import require_question, resolve_inputs
from qvft.data.sample import ImageSource
from qvft.errors import DataError
from qvft.files import read_text
from qvft.json_files import read_jsonl

_TEXT_KEYS = ("text", "caption", "captions")


def resolve_embed_inputs(
    names: Sequence[str], *, captions: bool = False
) -> tuple[list[ImageSource], list[str]]:
    """Each image once, or every text, in the order given; the other list is empty.

    Args:
        names: images, folders, globs and JSONL files as in `resolve_inputs`; or text files (`.txt`,
            one text per line), and JSONL files whose rows have `text`, `caption` or `captions` and
            no `image`.
        captions: of JSONL rows with an image, the captions instead.

    Raises DataError for images and texts together, no text, or as `resolve_inputs`.
    """
    texts = [list(_texts(Path(name), captions)) for name in names]
    if not any(texts) and not captions:
        rows = resolve_inputs(names)
        return list({row.sample.image.name: row.sample.image for row in rows}.values()), []
    for name, found in zip(names, texts, strict=True):
        if not found:
            raise DataError("holds no text", where=name, expected="texts alone, or images alone")
    return [], [text for found in texts for text in found]


def _texts(path: Path, captions: bool) -> Iterator[str]:
    """Texts of a file; none if it has images."""
    if path.suffix.lower() == ".txt":
        lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
        if not lines:
            raise DataError("holds no text", where=str(path), expected="one text per line")
        yield from lines
    elif path.suffix.lower() in (".jsonl", ".json") and path.is_file():
        rows = list(read_jsonl(path))
        if not captions and all("image" in row for _, row in rows):
            return
        for number, row in rows:
            where = f"{path}:{number}"
            if "image" in row and not captions:
                raise DataError("an image", where=where, expected="`image` in every row, or none")
            for one in (row[key] for key in _TEXT_KEYS if key in row):
                for text in one if isinstance(one, list) else [one]:
                    require_question(text, where=where, what="text")
                    yield text
