"""qvft's custom JSONL: one line per image with all its texts, or one line per text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from qvft.data.formats import fields
from qvft.data.formats.format import Format
from qvft.data.formats.path_guard import PathGuard
from qvft.data.formats.sample_builder import Unique, no_split
from qvft.data.sample import ImageSource, Question, Sample
from qvft.errors import DataError
from qvft.json_files import read_jsonl

ROW_KEYS = (
    "id", "image", "captions", "questions", "caption", "question", "answer", "answers", "meta",
)  # fmt: skip
QUESTION_KEYS = ("id", "question", "answer", "answers", "meta")

_LIST_HINTS = {
    "captions": 'write ["..."], or use `caption` for a single one',
    "questions": 'write [{"question": "...", "answers": ["..."]}]',
}


@dataclass
class _Image:
    """Lines of one image so far; questions without id get one when all lines are read."""

    image: ImageSource
    written: str
    where: str
    id: str | None = None
    caption_id: str | None = None
    captions: list[str] = field(default_factory=list)
    questions: list[tuple[str, Question]] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)


def read(
    path: Path,
    *,
    split: str | None = None,
    images: Path | None = None,
    allow_paths_outside_root: bool = False,
) -> Iterator[Sample]:
    """Samples of a JSONL file in order of first appearance of their images.

    Lines of the same image are merged. `id` and `meta` of a line with `question` belong to the
    question. The `id` of a line with `caption` is the sample's if no line of the image alone has
    one; the first counts. The default id of a sample is its image as written, and of a question its
    sample and number, `img/x1.png#1`.

    Args:
        path: the file, or a folder that holds `{split}.jsonl`.
        split: which file of a folder; of a single file it is only a label.
        images: folder that image paths are relative to; None: the file's own.
        allow_paths_outside_root: images may lie outside that folder.

    Raises:
        DataError: invalid line, with file and line number.
    """
    file = _file(path, split=split)
    home = images or file.parent
    inside = PathGuard(home, allow_paths_outside_root=allow_paths_outside_root)
    yield from merged(_lines(file, inside))


def _lines(file: Path, inside: PathGuard) -> Iterator[tuple[str, dict[str, Any], ImageSource, str]]:
    for number, row in read_jsonl(file):
        where = f"{file}:{number}"
        fields.known_keys(row, ROW_KEYS, where=where)
        written = fields.text(fields.field(row, "image", where=where), "image", where=where)
        yield where, row, inside.image(written, "image", where=where), written


def merged(
    rows: Iterable[tuple[str, Mapping[str, Any], ImageSource, str]],
) -> Iterator[Sample]:
    """Samples of rows with the JSONL fields; rows with the same image name are merged.

    Args:
        rows: position, fields, image, and default id of each row.

    Raises:
        DataError: as `read`.
    """
    found: dict[str, _Image] = {}
    for where, row, image, written in rows:
        _add(found.setdefault(image.name, _Image(image, written, where)), row, where=where)
    sample_ids, question_ids = Unique("id"), Unique("id of a question")
    for one in found.values():
        name = one.id or one.caption_id or one.written
        sample_ids.add(name, where=one.where)
        for where, asked in _named(one, name):
            question_ids.add(asked.id, where=where)
        yield _sample(one, name)


def record(row: Mapping[str, Any], image: ImageSource, *, name: str, where: str) -> Sample:
    """The sample of an object with the JSONL fields, for a given image.

    Args:
        row: the fields of a line; `image` is ignored.
        image: its image source.
        name: sample id; an `id` of the image is kept in its meta.
        where: position, for messages.

    Raises:
        DataError: as `read`.
    """
    fields.known_keys(row, ROW_KEYS, where=where)
    one = _Image(image, name, where)
    _add(one, row, where=where)
    own = one.id or one.caption_id
    if own is not None:
        one.meta.setdefault("id", own)
    return _sample(one, name)


def _sample(image: _Image, name: str) -> Sample:
    questions = tuple(asked for _, asked in _named(image, name))
    return Sample(name, image.image, tuple(image.captions), questions, image.meta)


def _named(image: _Image, name: str) -> Iterator[tuple[str, Question]]:
    """Its questions with their positions; those without id are numbered."""
    for n, (where, asked) in enumerate(image.questions, start=1):
        yield where, replace(asked, id=asked.id or f"{name}#{n}")


def _file(path: Path, *, split: str | None) -> Path:
    if not path.is_dir():
        return path
    splits = [file.stem for file in path.glob("*.jsonl")]
    if split not in splits:
        raise no_split(split, where=str(path), splits=splits)
    return path / f"{split}.jsonl"


def _add(image: _Image, row: Mapping[str, Any], *, where: str) -> None:
    if "id" in row and "question" not in row:
        _name(image, fields.identifier(row["id"], "id", where=where), row, where=where)
    if "caption" in row:
        image.captions.append(fields.text(row["caption"], "caption", where=where))
    for n, caption in enumerate(_list(row, "captions", where=where)):
        image.captions.append(fields.text(caption, f"captions[{n}]", where=where))
    for n, asked in enumerate(_list(row, "questions", where=where)):
        place = f"{where}, questions[{n}]"
        if not isinstance(asked, dict):
            raise DataError(
                fields.kind(asked),
                where=place,
                expected="an object",
                do='write {"question": "...", "answers": ["..."]}',
            )
        fields.known_keys(asked, QUESTION_KEYS, where=place)
        image.questions.append((where, _question(asked, where=place)))
    if "question" in row:
        image.questions.append((where, _question(row, where=where)))
    elif "answer" in row or "answers" in row:
        raise DataError(
            "an answer without `question`",
            where=where,
            expected="both on one line",
            do="add `question`, or name it `caption` if it describes the image",
        )
    else:
        _merge(image.meta, row.get("meta", {}), where=where)


def _name(image: _Image, name: str, row: Mapping[str, Any], *, where: str) -> None:
    if "caption" in row:
        image.caption_id = image.caption_id or name
        return
    if image.id not in (None, name):
        raise DataError(
            f"`id` {name} for an image that {image.where} calls {image.id}",
            where=where,
            expected="one id an image",
            do="give both lines the same id, or an id to the question alone",
        )
    image.id, image.where = name, where


def _list(row: Mapping[str, Any], key: str, *, where: str) -> list[Any]:
    value = row.get(key, [])
    if not isinstance(value, list):
        raise DataError(
            f"`{key}` is {fields.kind(value)}",
            where=where,
            expected="a list",
            do=_LIST_HINTS[key] if value is not None else f"leave `{key}` out if there are none",
        )
    return value


def _question(row: Mapping[str, Any], *, where: str) -> Question:
    if ("answer" in row) == ("answers" in row):
        raise DataError(
            "both `answer` and `answers`" if "answer" in row else "a question without answers",
            where=where,
            expected="either `answer` or `answers`",
            do="remove one" if "answer" in row else "add the answer, or remove the question",
        )
    if "answers" in row:
        given = fields.answers(row["answers"], "answers", where=where)
    else:
        given = (fields.answer(row["answer"], "answer", where=where),)
    meta: dict[str, Any] = {}
    _merge(meta, row.get("meta", {}), where=where)
    return Question(
        fields.identifier(row["id"], "id", where=where) if "id" in row else "",
        fields.text(fields.field(row, "question", where=where), "question", where=where),
        given,
        {key: fields.answer(value, f"meta.{key}", where=where) for key, value in meta.items()},
    )


def _merge(meta: dict[str, Any], added: Any, *, where: str) -> None:
    if not isinstance(added, dict):
        raise DataError(
            f"`meta` is {fields.kind(added)}",
            where=where,
            expected="an object",
            do='write {"name": "value"}, or leave `meta` out',
        )
    for key, value in added.items():
        if key in meta and meta[key] != value:
            raise DataError(
                f"`meta.{key}` differs from what an earlier line says of the image",
                where=where,
                expected="one value an image",
                do="correct one of the lines",
            )
        fields.valid_unicode({key: value}, f"meta.{key}", where=where)
        meta[key] = value


FORMAT = Format(
    "jsonl",
    "your own images and texts, one JSON object per line",
    read,
    ("split", "images", "allow_paths_outside_root"),
)
