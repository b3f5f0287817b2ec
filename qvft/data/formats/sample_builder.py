"""Groups records of the same image into one sample."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from qvft.data.sample import ImageSource, Pair, Question, Sample
from qvft.errors import DataError


@dataclass
class SampleBuilder:
    """Builds a sample from several records."""

    id: str
    image: ImageSource
    captions: list[str] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)
    pairs: list[Pair] = field(default_factory=list)

    def sample(self) -> Sample:
        """The complete sample; questions and pairs without id get `ID#N` and `ID#pairN`."""
        questions = [
            replace(one, id=one.id or f"{self.id}#{n}") for n, one in enumerate(self.questions, 1)
        ]
        pairs = [
            replace(one, id=one.id or f"{self.id}#pair{n}") for n, one in enumerate(self.pairs, 1)
        ]
        texts = tuple(self.captions), tuple(questions), self.meta, tuple(pairs)
        return Sample(self.id, self.image, *texts)


def require_different(chosen: str, rejected: str, *, where: str) -> None:
    """Raises DataError if the texts of a pair are equal."""
    if chosen == rejected:
        raise DataError(
            "`chosen` and `rejected` are equal",
            where=where,
            expected="two different texts",
            do="correct one of them, or remove the pair",
        )


class Unique:
    """Ids seen so far with their positions, to detect duplicates."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._places: dict[str, str] = {}

    def add(self, id: str, *, where: str) -> None:
        """Adds an id. Raises DataError for a duplicate, with both positions."""
        if id in self._places:
            raise DataError(
                f"`{self._key}` {id} is used twice",
                where=where,
                expected=f"one that is not used at {self._places[id]}",
                do="give one of the two another, or remove it if it is a repetition",
            )
        self._places[id] = where


def no_split(split: str | None, *, where: str, splits: Iterable[str]) -> DataError:
    """Error for a missing or unnamed split; lists the existing ones."""
    found = ", ".join(sorted(splits))
    if not found:
        return DataError("no file of any split", where=where, do="check the path and the format")
    return DataError(
        "no split is named" if split is None else f"no samples of split `{split}`",
        where=where,
        expected=f"one of the splits: {found}",
        do="name one with `split` (of qvft.convert: `--split`)",
    )


def existing(path: Path) -> Path:
    """`path`; raises DataError if it does not exist."""
    if not path.exists():
        raise DataError("no such file or folder", where=str(path), do="check the path")
    return path


def file_of_split(path: Path, split: str | None, suffixes: Collection[str]) -> Path:
    """`path`, or the file of a split in this folder, such as `train.csv`. Raises DataError."""
    if not existing(path).is_dir():
        return path
    files = {one.stem: one for one in sorted(path.iterdir()) if one.suffix.lower() in suffixes}
    if split not in files:
        raise no_split(split, where=str(path), splits=files)
    return files[split]


def image_folder(path: Path) -> Path:
    """`path`; raises DataError if it is not a folder."""
    if not path.is_dir():
        given = "a file" if path.exists() else "no such folder"
        raise DataError(given, where=str(path), expected="the folder of the images")
    return path
