"""Resolves images and questions that a command line or a Python caller gives to rows."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from os.path import isfile
from pathlib import Path
from typing import Any

from qvft.data.formats.fields import Record
from qvft.data.formats.path_guard import PathGuard
from qvft.data.images.listing import images_among
from qvft.data.images.sources import ImageLike, image_source
from qvft.data.prompt import Kind
from qvft.data.rows import Row
from qvft.data.sample import ImageFile, ImageSource, Sample
from qvft.errors import DataError
from qvft.json_files import read_jsonl
from qvft.log import get_logger

_LISTS = (".jsonl", ".json")
_log = get_logger(__name__)


def resolve_inputs(names: Sequence[str], *, question: str | None = None) -> list[Row]:
    """One row per image and question, in the order given.

    Skipped files and missing images are counted in a warning that names the first.

    Args:
        names: image files, folders (the images in them and in folders below, sorted), globs, and
            JSONL files whose rows have `image` (relative to the file) and optionally `question` or
            `questions`. The `id` of a row with `question`, or of a row without questions, becomes
            the id of its row here; a question in `questions` has its own `id`, or `ID#N` as the
            N-th of row ID, as in the jsonl format.
        question: question for every image without one; None: captions.

    Raises:
        DataError: a name matches nothing, a JSONL row has no image or an empty question, two
            different rows have the same id, or no image exists.
    """
    if question is not None:
        require_question(question, where="command line: --question")
    rows: list[Row] = []
    ids: dict[str, tuple[Row, str]] = {}
    repeated: list[str] = []
    for name in names:
        path = Path(name)
        if path.suffix.lower() in _LISTS and path.is_file():
            for where, row in _from_jsonl(path, question):
                if row.id and _is_repeated(row, where, ids):
                    repeated.append(row.id)
                else:
                    rows.append(row)
            continue
        rows += [_row(ImageFile(image), question) for image in _images(name)]
    if repeated:
        says = "rows with the id, image and question of an earlier one, asked once: %d, first %s"
        _log.warning(says, len(repeated), repeated[0])
    _require_images(rows)
    return rows


def asked_rows(
    images: ImageLike | Iterable[ImageLike], questions: str | Iterable[str] | None = None
) -> list[Row]:
    """A row per question, see `VisionLanguageModel.answer`; without questions, per image.

    Raises:
        DataError: an unsupported image type, a question that is no text, or numbers that differ.
    """
    one = isinstance(images, ImageLike) or not isinstance(images, Iterable)
    given: Iterable[Any] = [images] if one else images  # type: ignore[assignment]
    sources = [image_source(image, where="images") for image in given]
    if questions is None:
        return [_row(source, None) for source in sources]
    listed = isinstance(questions, Iterable) and not isinstance(questions, str)
    asked: list[str] = list(questions) if listed else [questions]  # type: ignore[list-item]
    for question in asked:
        require_question(question, where="questions")
    if isinstance(questions, str):
        asked *= len(sources)
    if isinstance(images, ImageLike):
        sources *= len(asked)
    if len(sources) != len(asked):
        raise DataError(
            f"{len(sources)} images and {len(asked)} questions",
            expected="a question for each image, one question, or one image that is no list",
        )
    return [_row(source, text) for source, text in zip(sources, asked, strict=True)]


def the_one_row(image: str, *, question: str | None = None) -> Row:
    """The row of one image. Raises DataError if a name matches several, or as `resolve_inputs`."""
    rows = resolve_inputs([image], question=question)
    if len(rows) != 1:
        raise DataError(f"names {len(rows)} images", where=image, expected="one image")
    return rows[0]


def read_names(given: str) -> tuple[str, ...]:
    """Names of the command line: `cat,dog`, or a UTF-8 text file with one per line."""
    parts = given.split(",")
    if isfile(given):  # False for a list that is too long for a file's name
        try:
            parts = Path(given).read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(f"not UTF-8 at byte {error.start}", where=given) from error
        parts = [line for line in parts if line.strip()]
    return tuple(part.strip() for part in parts)


def require_question(text: Any, *, where: str, what: str = "question") -> None:
    """Raises DataError if it is not a text that a tokenizer can read."""
    if not isinstance(text, str):
        raise DataError(f"a {what} that is a {type(text).__name__}", where=where)
    if not text.strip():
        raise DataError(f"an empty {what}", where=where)
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise DataError(
            f"a {what} that is not valid Unicode",
            where=where,
            do="write it in UTF-8, and set PYTHONUTF8=1 where the system says another encoding",
        )


def _is_repeated(row: Row, where: str, ids: dict[str, tuple[Row, str]]) -> bool:
    """Whether a row with this id has the same image and question as before; records the id."""
    before, place = ids.setdefault(row.id, (row, where))
    if (before.sample, before.question) != (row.sample, row.question):
        raise DataError(
            f"`id` {row.id} is used twice",
            where=where,
            expected=f"an id other than that of {place}",
            do="give each row its own id, or none",
        )
    return before is not row


def _require_images(rows: Sequence[Row]) -> None:
    """Warns of missing images; raises DataError if none exists."""
    paths = [Path(name) for name in dict.fromkeys(row.sample.image.name for row in rows)]
    missing = [path for path in paths if not path.exists()]
    if paths and len(missing) == len(paths):
        raise DataError(
            f"no such file, nor any other of {len(paths)} images",
            where=str(missing[0].absolute()),
            expected="images where the JSONL says, relative to its folder",
            do="check the paths in `image`",
        )
    if missing:
        says = "%d of %d images do not exist, first %s; their rows get an error"
        _log.warning(says, len(missing), len(paths), missing[0])


def _images(name: str) -> list[Path]:
    path = Path(name)
    if path.is_file():
        return [path]
    if path.is_dir():
        matches = sorted(path.rglob("*"))
    else:
        matches = sorted(Path(match) for match in glob.glob(name, recursive=True))
    found, others = images_among(matches)
    if not found:
        do = None
        if others:
            do = f"files that are no images: {len(others)}, first {others[0]}"
            if others[0].suffix.lower() in _LISTS:
                do = f"name {others[0]} itself"
        elif matches and not path.is_dir():
            do = (
                f"it matches folders alone, first {matches[0]}: name a folder, or its files with /*"
            )
        raise DataError(
            "matches no image",
            where=name,
            expected="an image, a folder of images, a glob of images or a JSONL file",
            do=do,
        )
    if others:
        says = "%s: files that are not images, skipped: %d, first %s"
        _log.warning(says, name, len(others), others[0])
    return found


def _from_jsonl(path: Path, question: str | None) -> Iterator[tuple[str, Row]]:
    """Rows with their positions."""
    guard = PathGuard(path.parent, allow_paths_outside_root=True)
    for number, values in read_jsonl(path):
        content = Record(values, f"{path}:{number}")
        image = guard.image(content.text("image"), "image", where=content.where)
        for text, text_id in _asked(content, question):
            yield content.where, _row(image, text, row_id=text_id)


def _asked(content: Record, default: str | None) -> Iterable[tuple[str | None, str]]:
    """Questions of a JSONL row with their ids; `default` if it has none."""
    where, own_id = content.where, _id_of(content)
    listed = content.get("questions") or []
    if not isinstance(listed, list):
        given = f"questions that are a {type(listed).__name__}"
        raise DataError(given, where=where, expected="a list")
    asked: list[tuple[Any, str]] = []
    for number, item in enumerate(listed, start=1):
        row = Record(item if isinstance(item, dict) else {"question": item}, where)
        numbered = f"{own_id}#{number}" if own_id else ""
        asked.append((row.get("question") or "", _id_of(row) or numbered))
    if content.get("question") is not None:
        asked.append((content["question"], own_id))
    for text, _ in asked:
        require_question(text, where=where)
    return asked or [(default, own_id)]


def _id_of(content: Record) -> str:
    """Id of the row or question as text; empty if it has none."""
    return "" if content.get("id") is None else content.identifier("id")


def _row(image: ImageSource, question: str | None, *, row_id: str = "") -> Row:
    sample = Sample(id=image.name, image=image)
    kind: Kind = "caption" if question is None else "question"
    return Row(row_id, sample, kind, question, "", (), {})
