"""SLAKE: `train.json`, `validation.json`, `test.json` and `imgs/xmlab*/source.jpg`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from qvft.data.formats import fields
from qvft.data.formats.gathering import Gathered, Unique, folder, no_split
from qvft.data.sample import ImageFile, Question, Sample
from qvft.errors import DataError
from qvft.files import read_json

_ALIASES = {"val": "validation", "validate": "validation"}
_LANGUAGES = ("en", "zh", "all")


def read(path: Path, *, split: str | None = None, images: Path | None = None) -> Iterator[Sample]:
    """Samples with their questions in English, or in the language that the split names.

    A question's meta has `answer_type` (`closed` or `open`), `content_type` and `language`, a
    sample's has `location` and `modality`.

    Args:
        path: the folder, or one of its JSON files (then `split` is only a label).
        split: `train`, `validation` (`val`) or `test`; `test:zh` takes the Chinese questions,
            `test:all` both languages.
        images: the image folder; None: `imgs` beside the file.

    Raises:
        DataError: a record is broken, a `qid` is used twice, or there is no such split.
    """
    name, _, language = (split or "").partition(":")
    language = language or "en"
    if language not in _LANGUAGES:
        raise DataError(
            f"language `{language}` in split `{split}`",
            where=str(path),
            expected="one of " + ", ".join(_LANGUAGES),
        )
    file = _file(path, split=name or None)
    pictures = folder(images or file.parent / "imgs", what="the images")
    found: dict[str, Gathered] = {}
    ids = Unique("qid")
    for record, row in fields.records(read_json(file), where=str(file)):
        qid = fields.identifier(fields.field(row, "qid", where=record), "qid", where=record)
        where = f"{file}, qid {qid}"
        spoken = fields.text(fields.field(row, "q_lang", where=where), "q_lang", where=where)
        if language not in ("all", spoken):
            continue
        ids.add(qid, where=record)
        written, words, answer_type, content_type, location, modality = (
            fields.text(fields.field(row, key, where=where), key, where=where)
            for key in (
                "img_name", "question", "answer_type", "content_type", "location", "modality",
            )  # fmt: skip
        )
        reply = fields.answer(fields.field(row, "answer", where=where), "answer", where=where)
        meta = {
            "answer_type": answer_type.lower(),
            "content_type": content_type,
            "language": spoken,
        }
        image = found.setdefault(
            written,
            Gathered(
                Path(written).parent.name or Path(written).stem,
                ImageFile(pictures / written),
                meta={"location": location, "modality": modality},
            ),
        )
        image.questions.append(Question(qid, words, (reply,), meta))
    yield from (gathered.sample() for gathered in found.values())


def _file(path: Path, *, split: str | None) -> Path:
    if not path.is_dir():
        return path
    names = {name: name for name in ("train", "validation", "test")} | _ALIASES
    for stem in dict.fromkeys([split or "", names.get(split or "", ""), "validate"]):
        if names.get(stem) == names.get(split or "") and (path / f"{stem}.json").exists():
            return path / f"{stem}.json"
    present = [file.stem for file in path.glob("*.json") if file.stem in names]
    raise no_split(split, where=str(path), splits=present)
