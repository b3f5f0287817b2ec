"""The official VQA v2 layout: a questions file, an annotations file, a folder of COCO images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qvft.data.formats import fields
from qvft.data.formats.format import Format
from qvft.data.formats.path_guard import PathGuard
from qvft.data.formats.sample_builder import SampleBuilder, Unique, folder, no_split
from qvft.data.sample import Question, Sample
from qvft.errors import DataError
from qvft.json_files import read_json

_QUESTIONS = "v2_OpenEnded_mscoco_{}_questions.json"
_ANNOTATIONS = "v2_mscoco_{}_annotations.json"
_YEARS = {"train": "train2014", "val": "val2014", "test": "test2015", "test-dev": "test-dev2015"}
_SUFFIXES = (".jpg", ".png", ".jpeg")


def read(
    path: Path,
    *,
    split: str | None = None,
    questions: Path | None = None,
    annotations: Path | None = None,
    images: Path | None = None,
    allow_paths_outside_root: bool = False,
) -> Iterator[Sample]:
    """Samples in order of first appearance of their images, with all human answers.

    Args:
        path: folder with the official file names; used for what is not given separately.
        split: `train` or `val` (the answers of `test` and `test-dev` are not published), or a
            subset as files name it, e.g. `train2014`.
        questions: the questions file.
        annotations: the annotations file.
        images: the image folder; None: `train2014/` and so on in `path` if it is there, otherwise
            `path`. Names are `COCO_train2014_000000000042.jpg` or `000000000042.jpg`, or `.png`.
        allow_paths_outside_root: images may lie outside that folder.

    Raises:
        DataError: a record is broken, an id is used twice, a question has no annotation or an
            annotation no question, there is no such split, or the split has no answers.
    """
    subset = _YEARS.get(split or "", split)
    question_file = questions or _official(path, _QUESTIONS, subset=subset, split=split)
    asked = read_json(question_file)
    if isinstance(asked, dict):
        subset = asked.get("data_subtype") or subset
    annotations = annotations or path / _ANNOTATIONS.format(subset)
    if not annotations.exists():
        raise DataError(
            "no such file",
            where=str(annotations),
            expected="the answers to the questions",
            do="use train or val: the answers of VQA v2's test questions are not published",
        )
    pictures = _pictures(path, subset=subset, images=images)
    inside = PathGuard(pictures, allow_paths_outside_root=allow_paths_outside_root)
    present = {entry.name for entry in os.scandir(pictures)}
    answered = _annotations(annotations)
    found: dict[str, SampleBuilder] = {}
    ids = Unique("question_id")
    for where, row in fields.section(asked, "questions", path=question_file):
        key = fields.field(row, "question_id", where=where)
        question_id = fields.identifier(key, "question_id", where=where)
        ids.add(question_id, where=where)
        image_id = fields.field(row, "image_id", where=where)
        image = fields.identifier(image_id, "image_id", where=where)
        words = fields.text(fields.field(row, "question", where=where), "question", where=where)
        if question_id not in answered:
            raise DataError(
                f"`question_id` {question_id} has no annotation",
                where=where,
                expected=f"its answers in {annotations}",
                do="give the annotations of the same split",
            )
        answers, meta = answered.pop(question_id)
        name = _image_name(image, subset=subset, present=present)
        file = inside.image(name, "image_id", where=where)
        found.setdefault(image, SampleBuilder(image, file)).questions.append(
            Question(question_id, words, answers, meta)
        )
    for question_id in answered:
        raise DataError(
            f"`question_id` {question_id} is not the id of a question ({len(answered)} such)",
            where=str(annotations),
            expected=f"ids in {question_file}",
            do="give the questions of the same split",
        )
    yield from (gathered.sample() for gathered in found.values())


def _official(path: Path, name: str, *, subset: str | None, split: str | None) -> Path:
    file = path / name.format(subset)
    if subset is None or not file.exists():
        before, after = name.split("{}")
        names = [found.name for found in path.glob(name.format("*"))]
        subsets = [found[len(before) : -len(after)] for found in names]
        years = {year: short for short, year in _YEARS.items()}
        raise no_split(split, where=str(path), splits=[years.get(key, key) for key in subsets])
    return file


def _annotations(path: Path) -> dict[str, tuple[tuple[str, ...], dict[str, str]]]:
    """Answers and meta by question id."""
    answered = {}
    ids = Unique("question_id")
    for where, row in fields.section(read_json(path), "annotations", path=path):
        key = fields.field(row, "question_id", where=where)
        question_id = fields.identifier(key, "question_id", where=where)
        ids.add(question_id, where=where)
        given = fields.field(row, "answers", where=where)
        answers = tuple(
            fields.answer(fields.field(one, "answer", where=place), "answer", where=place)
            for place, one in fields.records(
                given, where=f"{where}, answers", example='{"answer": "yes"}'
            )
        )
        if not answers:
            raise DataError(
                "`answers` is empty",
                where=where,
                expected="the human answers",
                do="add them, or remove the question and its annotation",
            )
        answered[question_id] = (answers, _meta(row, where=where))
    return answered


def _meta(row: dict[str, Any], *, where: str) -> dict[str, str]:
    keys = ("question_type", "answer_type")
    return {key: fields.text(row[key], key, where=where) for key in keys if key in row}


def _pictures(path: Path, *, subset: str | None, images: Path | None) -> Path:
    if images is not None:
        return folder(images, what="the images")
    inside = path / str(subset)
    return inside if inside.is_dir() else folder(path, what="the images")


def _image_name(image_id: str, *, subset: str | None, present: set[str]) -> str:
    """File name of an image: the first possible one that exists, else the official one."""
    number = image_id.zfill(12)
    stems = [f"COCO_{subset}_{number}", number] if subset else [number]
    names = [stem + suffix for stem in stems for suffix in _SUFFIXES]
    return next((name for name in names if name in present), names[0])


FORMAT = Format(
    "vqa_v2",
    "VQA v2 questions and annotations",
    read,
    ("split", "questions", "annotations", "images", "allow_paths_outside_root"),
)
