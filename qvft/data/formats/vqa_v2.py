"""The official VQA v2 layout: a questions file, an annotations file, a folder of COCO images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from qvft.data.formats import fields
from qvft.data.formats.format import Format
from qvft.data.formats.path_guard import PathGuard
from qvft.data.formats.sample_builder import SampleBuilder, Unique, image_folder, no_split
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
    allow_paths_outside_root: bool | None = None,
) -> Iterator[Sample]:
    """Samples in order of first appearance of their images, with all human answers.

    Args:
        path: folder with the official file names; used for what is not given separately.
        split: `train` or `val` (the answers of `test` and `test-dev` are not published), or a
            subset as files name it, e.g. `train2014`.
        images: the image folder; None: `train2014/` and so on in `path` if it is there, otherwise
            `path`. Names are `COCO_train2014_000000000042.jpg` or `000000000042.jpg`, or `.png`.
    """
    subset = _YEARS.get(split or "", split)
    question_file = questions or _official_questions(path, subset=subset, split=split)
    content = read_json(question_file)
    if isinstance(content, dict):
        subset = content.get("data_subtype") or subset
    annotations = annotations or path / _ANNOTATIONS.format(subset)
    if not annotations.exists():
        do = "check the path"
        if str(subset).startswith("test"):
            do = "use train or val: the answers of VQA v2's test questions are not published"
        expected = "the answers to the questions"
        raise DataError("no such file", where=str(annotations), expected=expected, do=do)
    if images is None:
        images = path / str(subset) if (path / str(subset)).is_dir() else path
    guard = PathGuard(image_folder(images), allow_paths_outside_root=allow_paths_outside_root)
    present = {entry.name for entry in os.scandir(images)}
    answered = _annotations(annotations)
    found: dict[str, SampleBuilder] = {}
    ids = Unique("question_id")
    for where, row in fields.section(content, "questions", path=question_file):
        question_id, image_id = row.identifier("question_id"), row.identifier("image_id")
        ids.add(question_id, where=where)
        if question_id not in answered:
            raise DataError(
                f"`question_id` {question_id} has no annotation",
                where=where,
                expected=f"its answers in {annotations}",
                do="give the annotations of the same split",
            )
        answers, meta = answered.pop(question_id)
        name = _image_name(image_id, subset=subset, present=present)
        image = guard.image(name, "image_id", where=where)
        found.setdefault(image_id, SampleBuilder(image_id, image)).questions.append(
            Question(question_id, row.text("question"), answers, meta)
        )
    if answered:
        raise DataError(
            f"`question_id` {next(iter(answered))} is not the id of a question "
            f"({len(answered)} such)",
            where=str(annotations),
            expected=f"ids in {question_file}",
            do="give the questions of the same split",
        )
    yield from (one.sample() for one in found.values())


def _official_questions(path: Path, *, subset: str | None, split: str | None) -> Path:
    file = path / _QUESTIONS.format(subset)
    if subset is None or not file.exists():
        before, after = _QUESTIONS.split("{}")
        names = [found.name for found in path.glob(_QUESTIONS.format("*"))]
        subsets = [name.removeprefix(before).removesuffix(after) for name in names]
        splits = {year: short for short, year in _YEARS.items()}
        raise no_split(split, where=str(path), splits=[splits.get(one, one) for one in subsets])
    return file


def _annotations(path: Path) -> dict[str, tuple[tuple[str, ...], dict[str, str]]]:
    """Answers and meta by question id."""
    answered = {}
    ids = Unique("question_id")
    for where, row in fields.section(read_json(path), "annotations", path=path):
        question_id = row.identifier("question_id")
        ids.add(question_id, where=where)
        given = row.records("answers", example='{"answer": "yes"}')
        answers = tuple(one.answer("answer") for _, one in given)
        if not answers:
            raise DataError(
                "`answers` is empty",
                where=where,
                expected="the human answers",
                do="add them, or remove the question and its annotation",
            )
        meta = {key: row.text(key) for key in ("question_type", "answer_type") if key in row}
        answered[question_id] = (answers, meta)
    return answered


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
