"""PathVQA, without pickles: parquet with embedded images, or rows with image files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from qvft.data.formats import fields, hf
from qvft.data.formats.csv_rows import read_rows
from qvft.data.formats.fields import Record
from qvft.data.formats.format import IMAGE_OPTIONS, Format
from qvft.data.formats.path_guard import PathGuard
from qvft.data.formats.sample_builder import SampleBuilder, existing, image_folder, no_split
from qvft.data.sample import Question, Sample
from qvft.errors import DataError

_STEMS = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}
_SUFFIXES = (".jpg", ".png", ".jpeg")
_KEYS = ("image", "question", "answer")
_ROW_FILES = (".json", ".jsonl", ".csv")


def read(
    path: Path,
    *,
    split: str | None = None,
    images: Path | None = None,
    allow_paths_outside_root: bool | None = None,
) -> Iterator[Sample]:
    """Samples of a split; each question's meta has `answer_type`.

    The data gives no types: as in the literature, an answer `yes` or `no` makes a question
    `closed`, any other `open`.

    Args:
        path: a folder with `{split}.json`, `.jsonl` or `.csv` (rows of `image`, `question`,
            `answer`), one such file, or a folder or file of parquet (columns of the same names).
        split: `train`, `validation` (`val`) or `test`.
        images: the image folder of rows; None: `images/{split}` or `images` beside the file, or
            the file's own folder. `image` may lack its suffix (the original's `train_0001`).
    """
    stems = next((stems for stems in _STEMS.values() if split in stems), ())
    file = _rows_file(path, stems, split=split)
    if file is None:
        columns = {key: key for key in _KEYS} | {"id": ""}
        samples = hf.read(
            path, split=split, columns=columns, allow_paths_outside_root=allow_paths_outside_root
        )
    else:
        below = file.parent / "images"
        folders = [*(below / stem for stem in stems), below]
        default = next((folder for folder in folders if folder.is_dir()), file.parent)
        folder = image_folder(images or default)
        guard = PathGuard(folder, allow_paths_outside_root=allow_paths_outside_root)
        samples = _from_rows(file, folder, guard)
    for sample in samples:
        yield replace(sample, questions=tuple(map(_with_type, sample.questions)))


def _with_type(question: Question) -> Question:
    closed = question.answers[0].lower() in ("yes", "no")
    return replace(question, meta={"answer_type": "closed" if closed else "open"})


def _rows_file(path: Path, stems: tuple[str, ...], *, split: str | None) -> Path | None:
    """The file of rows, None if there is parquet."""
    if not existing(path).is_dir():
        return None if path.suffix == ".parquet" else path
    files = {file.stem: file for kind in _ROW_FILES for file in sorted(path.glob(f"*{kind}"))}
    for stem in stems:
        if stem in files:
            return files[stem]
    if any(path.rglob("*.parquet")):
        return None
    if any(path.rglob("*.pkl")):
        raise DataError(
            "pickles only",
            where=str(path),
            expected="parquet, JSON, JSONL or CSV; loading a pickle can run any code",
            do="get the parquet form of the dataset, or convert the pickles elsewhere",
        )
    splits = [name for name, stems in _STEMS.items() if set(stems) & set(files)]
    raise no_split(split, where=str(path), splits=splits)


def _from_rows(file: Path, folder: Path, guard: PathGuard) -> Iterator[Sample]:
    present = {entry.name for entry in os.scandir(folder)}
    found: dict[str, SampleBuilder] = {}
    for number, row in enumerate(_rows(file)):
        name = row.text("image")
        names = [name, *(name + suffix for suffix in _SUFFIXES)]
        file_name = next((one for one in names if one in present), name)
        image = guard.image(file_name, "image", where=row.where)
        found.setdefault(file_name, SampleBuilder(Path(file_name).stem, image)).questions.append(
            Question(str(number), row.text("question"), (row.answer("answer"),))
        )
    yield from (one.sample() for one in found.values())


def _rows(file: Path) -> Iterator[Record]:
    if file.suffix in (".json", ".jsonl"):
        yield from fields.records_of_file(file)
        return
    if file.suffix != ".csv":
        raise DataError(
            f"a `{file.suffix}` file",
            where=str(file),
            expected="one of " + ", ".join(_ROW_FILES),
            do="save it as one of these",
        )
    names, rows = read_rows(file, skipinitialspace=True)  # the header's names in any case
    for key in _KEYS:
        if [name.lower() for name in names].count(key) != 1:
            raise DataError(
                f"columns {', '.join(names)}",
                where=f"{file}:1",
                expected="one each of " + ", ".join(_KEYS),
                do="write `image,question,answer` as the first line",
            )
    for number, cells in rows:
        yield Record({name.lower(): cell for name, cell in cells.items()}, f"{file}:{number}")


FORMAT = Format("pathvqa", "PathVQA as parquet or JSON", read, IMAGE_OPTIONS)
