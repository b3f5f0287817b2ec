"""qvft's custom JSONL: one line per image with all its texts, or one line per text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qvft.data.formats import fields
from qvft.data.formats import jsonl_texts as texts
from qvft.data.formats.fields import Record
from qvft.data.formats.format import IMAGE_OPTIONS, Format
from qvft.data.formats.path_guard import PathGuard
from qvft.data.formats.sample_builder import SampleBuilder, Unique, file_of_split
from qvft.data.sample import ImageSource, Sample
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
        one = found.setdefault(image.name, _ImageTexts(default_id, image, where=row.where))
        one.add(row)
    sample_ids, question_ids = Unique("id"), Unique("id of a question")
    pair_ids = Unique("id of a pair")
    for one in found.values():
        one.id = one.given_id or one.caption_id or one.id
        sample = one.sample()
        sample_ids.add(sample.id, where=one.where)
        for where, question in zip(one.question_places, sample.questions, strict=True):
            question_ids.add(question.id, where=where)
        for where, preferred in zip(one.pair_places, sample.pairs, strict=True):
            pair_ids.add(preferred.id, where=where)
        yield sample


def record(values: Mapping[str, Any], image: ImageSource, *, name: str, where: str) -> Sample:
    """The sample of an object with the JSONL fields, for a given image; `name` is its id, an `id`
    of the image is kept in its meta.
    """
    fields.known_keys(values, ROW_KEYS, where=where)
    one = _ImageTexts(name, image, where=where)
    one.add(Record(values, where))
    if (own_id := one.given_id or one.caption_id) is not None:
        one.meta.setdefault("id", own_id)
    return one.sample()


@dataclass
class _ImageTexts(SampleBuilder):
    """Texts of one image, collected from its lines, with the positions of its ids."""

    where: str = ""
    given_id: str | None = None
    caption_id: str | None = None
    question_places: list[str] = field(default_factory=list)
    pair_places: list[str] = field(default_factory=list)

    def add(self, row: Record) -> None:
        where = row.where
        if "id" in row and "question" not in row and not texts.is_pair(row):
            self._add_id(row)
        if "caption" in row:
            self.captions.append(row.text("caption"))
        for n, caption in enumerate(texts.read_list(row, "captions")):
            self.captions.append(fields.text(caption, f"captions[{n}]", where=where))
        asked = [
            texts.read_question(one)
            for one in texts.read_objects(row, "questions", texts.QUESTION_KEYS)
        ]
        pairs = [texts.read_pair(one) for one in texts.read_objects(row, "pairs", texts.PAIR_KEYS)]
        if texts.is_pair(row):
            pairs.append(texts.read_pair(row))
        elif "question" in row:
            asked.append(texts.read_question(row))
        elif "answer" in row or "answers" in row:
            raise DataError(
                "an answer without `question`",
                where=where,
                expected="both on one line",
                do="add `question`, or name it `caption` if it describes the image",
            )
        else:
            texts.add_meta(self.meta, row)
        self.questions += asked
        self.pairs += pairs
        self.question_places += [where] * len(asked)
        self.pair_places += [where] * len(pairs)

    def _add_id(self, row: Record) -> None:
        id = row.identifier("id")
        if "caption" in row:
            self.caption_id = self.caption_id or id
            return
        if self.given_id not in (None, id):
            raise DataError(
                f"`id` {id} for an image that {self.where} calls {self.given_id}",
                where=row.where,
                expected="one id per image",
                do="give both lines the same id, or an id to the question alone",
            )
        self.given_id, self.where = id, row.where


FORMAT = Format("jsonl", "your own images and texts, one JSON object per line", read, IMAGE_OPTIONS)
