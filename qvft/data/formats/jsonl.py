"""qvft's custom JSONL: one line per image with all its texts, or one line per text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from qvft.data.formats import fields
from qvft.data.formats.fields import Record
from qvft.data.formats.format import IMAGE_OPTIONS, Format
from qvft.data.formats.jsonl_texts import (
    PAIR_KEYS,
    QUESTION_KEYS,
    add_meta,
    is_pair,
    read_list,
    read_objects,
    read_pair,
    read_question,
)
from qvft.data.formats.path_guard import PathGuard
from qvft.data.formats.sample_builder import Unique, file_of_split, numbered_pairs
from qvft.data.sample import ImageSource, Pair, Question, Sample
from qvft.errors import DataError
from qvft.json_files import read_jsonl

ROW_KEYS = (
    "id", "image", "captions", "questions", "pairs",
    "caption", "question", "answer", "answers", "candidates", "chosen", "rejected", "meta",
)  # fmt: skip


def read(
    path: Path,
    *,
    split: str | None = None,
    images: Path | None = None,
    allow_paths_outside_root: bool | None = None,
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
    """
    file = file_of_split(path, split, [".jsonl"])
    guard = PathGuard(images or file.parent, allow_paths_outside_root=allow_paths_outside_root)
    yield from merged(_lines(file, guard))


def _lines(file: Path, guard: PathGuard) -> Iterator[tuple[Record, ImageSource, str]]:
    for number, values in read_jsonl(file):
        row = Record(values, f"{file}:{number}")
        fields.known_keys(row, ROW_KEYS, where=row.where)
        written = row.text("image")
        yield row, guard.image(written, "image", where=row.where), written


def merged(rows: Iterable[tuple[Record, ImageSource, str]]) -> Iterator[Sample]:
    """Samples of rows with the JSONL fields; rows with the same image name are merged."""
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
    """The sample of an object with the JSONL fields, for a given image; `name` is its id, an `id`
    of the image is kept in its meta.
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
        pairs = numbered_pairs(id, (pair for _, pair in self.pairs))
        return Sample(id, self.image, tuple(self.captions), questions, self.meta, pairs)

    def add(self, row: Record) -> None:
        where = row.where
        if "id" in row and "question" not in row and not is_pair(row):
            self._add_id(row)
        if "caption" in row:
            self.captions.append(row.text("caption"))
        for n, caption in enumerate(read_list(row, "captions")):
            self.captions.append(fields.text(caption, f"captions[{n}]", where=where))
        for one in read_objects(row, "questions", QUESTION_KEYS):
            self.questions.append((where, read_question(one)))
        for one in read_objects(row, "pairs", PAIR_KEYS):
            self.pairs.append((where, read_pair(one)))
        if is_pair(row):
            self.pairs.append((where, read_pair(row)))
        elif "question" in row:
            self.questions.append((where, read_question(row)))
        elif "answer" in row or "answers" in row:
            raise DataError(
                "an answer without `question`",
                where=where,
                expected="both on one line",
                do="add `question`, or name it `caption` if it describes the image",
            )
        else:
            add_meta(self.meta, row)

    def _add_id(self, row: Record) -> None:
        id = row.identifier("id")
        if "caption" in row:
            self.caption_id = self.caption_id or id
            return
        if self.id not in (None, id):
            raise DataError(
                f"`id` {id} for an image that {self.where} calls {self.id}",
                where=row.where,
                expected="one id per image",
                do="give both lines the same id, or an id to the question alone",
            )
        self.id, self.where = id, row.where


FORMAT = Format("jsonl", "your own images and texts, one JSON object per line", read, IMAGE_OPTIONS)
