"""qvft's custom JSONL: one line per image with all its texts, or one line per text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from qvft.data.formats import fields
from qvft.data.formats.fields import Record
from qvft.data.formats.format import Format
from qvft.data.formats.jsonl_pairs import PAIR_KEYS, is_pair, pair
from qvft.data.formats.path_guard import PathGuard
from qvft.data.formats.sample_builder import Unique, no_split
from qvft.data.sample import ImageSource, Pair, Question, Sample
from qvft.errors import DataError
from qvft.json_files import read_jsonl

ROW_KEYS = (
    "id", "image", "captions", "questions", "pairs",
    "caption", "question", "answer", "answers", "chosen", "rejected", "meta",
)  # fmt: skip
QUESTION_KEYS = ("id", "question", "answer", "answers", "meta")

_LIST_HINTS = {
    "captions": 'write ["..."], or use `caption` for a single one',
    "questions": 'write [{"question": "...", "answers": ["..."]}]',
    "pairs": 'write [{"question": "...", "chosen": "...", "rejected": "..."}]',
}


def read(
    path: Path,
    *,
    split: str | None = None,
    images: Path | None = None,
    allow_paths_outside_root: bool = False,
) -> Iterator[Sample]:
    """Samples of a JSONL file in order of first appearance of their images.

    Lines of the same image are merged. `id` and `meta` of a line with `question` belong to the
    question, those of a line with `chosen` and `rejected` to the pair. The `id` of a line with
    `caption` is the sample's if no line of the image alone has one; the first counts. The default
    id of a sample is its image as written, and of a question or a pair its sample and number,
    `img/x1.png#1`, `img/x1.png#pair1`.

    Args:
        path: the file, or a folder that holds `{split}.jsonl`.
        split: which file of a folder; of a single file it is only a label.
        images: folder that image paths are relative to; None: the file's own.

    Raises:
        DataError: invalid line, with file and line number.
    """
    file = path
    if path.is_dir():
        splits = [one.stem for one in path.glob("*.jsonl")]
        if split not in splits:
            raise no_split(split, where=str(path), splits=splits)
        file = path / f"{split}.jsonl"
    guard = PathGuard(images or file.parent, allow_paths_outside_root=allow_paths_outside_root)
    yield from merged(_lines(file, guard))


def _lines(file: Path, guard: PathGuard) -> Iterator[tuple[Record, ImageSource, str]]:
    for number, values in read_jsonl(file):
        row = Record(values, f"{file}:{number}")
        fields.known_keys(row, ROW_KEYS, where=row.where)
        written = row.text("image")
        yield row, guard.image(written, "image", where=row.where), written


def merged(rows: Iterable[tuple[Record, ImageSource, str]]) -> Iterator[Sample]:
    """Samples of rows with the JSONL fields; rows with the same image name are merged.

    Args:
        rows: fields, image, and default id of each row.

    Raises:
        DataError: as `read`.
    """
    found: dict[str, _ImageTexts] = {}
    for row, image, default_id in rows:
        found.setdefault(image.name, _ImageTexts(image, default_id, row.where)).add(row)
    sample_ids, question_ids = Unique("id"), Unique("id of a question")
    pair_ids = Unique("id of a pair")
    for one in found.values():
        sample = one.sample(one.given_id or one.default_id)
        sample_ids.add(sample.id, where=one.where)
        for (where, _), question in zip(one.questions, sample.questions, strict=True):
            question_ids.add(question.id, where=where)
        for (where, _), preferred in zip(one.pairs, sample.pairs, strict=True):
            pair_ids.add(preferred.id, where=where)
        yield sample


def record(values: Mapping[str, Any], image: ImageSource, *, name: str, where: str) -> Sample:
    """The sample of an object with the JSONL fields, for a given image.

    Args:
        values: the fields of a line; `image` is ignored.
        name: sample id; an `id` of the image is kept in its meta.
        where: position, for messages.

    Raises:
        DataError: as `read`.
    """
    fields.known_keys(values, ROW_KEYS, where=where)
    one = _ImageTexts(image, name, where)
    one.add(Record(values, where))
    if one.given_id is not None:
        one.meta.setdefault("id", one.given_id)
    return one.sample(name)


@dataclass
class _ImageTexts:
    """Texts of one image, collected from its lines."""

    image: ImageSource
    default_id: str
    where: str
    id: str | None = None
    caption_id: str | None = None
    captions: list[str] = field(default_factory=list)
    questions: list[tuple[str, Question]] = field(default_factory=list)  # with their positions
    pairs: list[tuple[str, Pair]] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def given_id(self) -> str | None:
        return self.id or self.caption_id

    def sample(self, id: str) -> Sample:
        """The sample; questions and pairs without id get one."""
        questions = tuple(
            replace(question, id=question.id or f"{id}#{n}")
            for n, (_, question) in enumerate(self.questions, start=1)
        )
        pairs = tuple(
            replace(pair, id=pair.id or f"{id}#pair{n}")
            for n, (_, pair) in enumerate(self.pairs, start=1)
        )
        return Sample(id, self.image, tuple(self.captions), questions, self.meta, pairs)

    def add(self, row: Record) -> None:
        where = row.where
        if "id" in row and "question" not in row and not is_pair(row):
            self._add_id(row)
        if "caption" in row:
            self.captions.append(row.text("caption"))
        for n, caption in enumerate(_list(row, "captions")):
            self.captions.append(fields.text(caption, f"captions[{n}]", where=where))
        for one in _objects(row, "questions", QUESTION_KEYS):
            self.questions.append((where, _question(one)))
        for one in _objects(row, "pairs", PAIR_KEYS):
            self.pairs.append((where, pair(one, _meta(one))))
        if is_pair(row):
            self.pairs.append((where, pair(row, _meta(row))))
        elif "question" in row:
            self.questions.append((where, _question(row)))
        elif "answer" in row or "answers" in row:
            raise DataError(
                "an answer without `question`",
                where=where,
                expected="both on one line",
                do="add `question`, or name it `caption` if it describes the image",
            )
        else:
            _add_meta(self.meta, row)

    def _add_id(self, row: Record) -> None:
        id = row.identifier("id")
        if "caption" in row:
            self.caption_id = self.caption_id or id
            return
        if self.id not in (None, id):
            raise DataError(
                f"`id` {id} for an image that {self.where} calls {self.id}",
                where=row.where,
                expected="one id an image",
                do="give both lines the same id, or an id to the question alone",
            )
        self.id, self.where = id, row.where


def _list(row: Record, key: str) -> list[Any]:
    value = row.get(key, [])
    if not isinstance(value, list):
        raise DataError(
            f"`{key}` is {fields.kind(value)}",
            where=row.where,
            expected="a list",
            do=_LIST_HINTS[key] if value is not None else f"remove `{key}` if there are none",
        )
    return value


def _objects(row: Record, key: str, keys: tuple[str, ...]) -> Iterator[Record]:
    """The objects of a list, each with known keys."""
    for n, values in enumerate(_list(row, key)):
        place = f"{row.where}, {key}[{n}]"
        if not isinstance(values, dict):
            do = _LIST_HINTS[key].replace("[{", "{").replace("}]", "}")
            raise DataError(fields.kind(values), where=place, expected="an object", do=do)
        fields.known_keys(values, keys, where=place)
        yield Record(values, place)


def _question(row: Record) -> Question:
    if ("answer" in row) == ("answers" in row):
        raise DataError(
            "both `answer` and `answers`" if "answer" in row else "a question without answers",
            where=row.where,
            expected="either `answer` or `answers`",
            do="remove one" if "answer" in row else "add the answer, or remove the question",
        )
    if "answers" in row:
        answers = fields.answers(row["answers"], "answers", where=row.where)
    else:
        answers = (row.answer("answer"),)
    return Question(
        row.identifier("id") if "id" in row else "",
        row.text("question"),
        answers,
        {
            key: fields.answer(one, f"meta.{key}", where=row.where)
            for key, one in _meta(row).items()
        },
    )


def _meta(row: Record) -> dict[str, Any]:
    meta: dict[str, Any] = {}
    _add_meta(meta, row)
    return meta


def _add_meta(meta: dict[str, Any], row: Record) -> None:
    added = row.get("meta", {})
    if not isinstance(added, dict):
        raise DataError(
            f"`meta` is {fields.kind(added)}",
            where=row.where,
            expected="an object",
            do='write {"name": "value"}, or remove `meta`',
        )
    for key, value in added.items():
        if key in meta and meta[key] != value:
            raise DataError(
                f"`meta.{key}` differs from what an earlier line says of the image",
                where=row.where,
                expected="one value an image",
                do="correct one of the lines",
            )
        fields.valid_unicode({key: value}, f"meta.{key}", where=row.where)
        meta[key] = value


FORMAT = Format(
    "jsonl",
    "your own images and texts, one JSON object per line",
    read,
    ("split", "images", "allow_paths_outside_root"),
)
