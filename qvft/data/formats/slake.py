"""SLAKE: `train.json`, `validation.json`, `test.json` and `imgs/xmlab*/source.jpg`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from qvft.data.formats import fields
from qvft.data.formats.format import Format
from qvft.data.formats.path_guard import PathGuard
from qvft.data.formats.sample_builder import SampleBuilder, Unique, existing, folder, no_split
from qvft.data.sample import Question, Sample
from qvft.errors import DataError
from qvft.json_files import read_json
from qvft.log import get_logger

_STEMS = {
    "train": ("train",),
    "validation": ("validation", "validate", "val"),
    "test": ("test",),
}
_TEXT_KEYS = ("img_name", "question", "answer_type", "content_type", "location", "modality")
_log = get_logger(__name__)
_LANGUAGES = ("en", "zh", "all")


def read(
    path: Path,
    *,
    split: str | None = None,
    images: Path | None = None,
    allow_paths_outside_root: bool = False,
) -> Iterator[Sample]:
    """Samples with their questions in English, or in the language that the split names.

    A question's meta has `answer_type` (`closed` or `open`), `content_type` and `language`, a
    sample's has `location` and `modality`.

    Args:
        path: the folder, or one of its JSON files (then `split` is only a label).
        split: `train`, `validation` (`val`) or `test`; `test:zh` takes the Chinese questions,
            `test:all` both languages.
        images: the image folder; None: `imgs` beside the file.
        allow_paths_outside_root: images may lie outside that folder.

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
    inside = PathGuard(pictures, allow_paths_outside_root=allow_paths_outside_root)
    found: dict[str, SampleBuilder] = {}
    ids = Unique("qid")
    others = 0
    for record, row in fields.records(read_json(file), where=str(file)):
        qid = fields.identifier(fields.field(row, "qid", where=record), "qid", where=record)
        where = f"{file}, qid {qid}"
        spoken = fields.text(fields.field(row, "q_lang", where=where), "q_lang", where=where)
        if language not in ("all", spoken):
            others += 1
            continue
        ids.add(qid, where=record)
        texts = {
            key: fields.text(fields.field(row, key, where=where), key, where=where)
            for key in _TEXT_KEYS
        }
        reply = fields.answer(fields.field(row, "answer", where=where), "answer", where=where)
        meta = {
            "answer_type": texts["answer_type"].lower(),
            "content_type": texts["content_type"],
            "language": spoken,
        }
        written = Path(texts["img_name"].replace("\\", "/"))
        image = found.setdefault(
            str(written),
            SampleBuilder(
                written.parent.name or written.stem,
                inside.image(texts["img_name"], "img_name", where=where),
                meta={key: texts[key] for key in ("location", "modality")},
            ),
        )
        image.questions.append(Question(qid, texts["question"], (reply,), meta))
    if others:
        _log.info("%s: %d questions are in another language than %s", file, others, language)
    yield from (gathered.sample() for gathered in found.values())


def _file(path: Path, *, split: str | None) -> Path:
    if not existing(path).is_dir():
        return path
    stems = next((stems for stems in _STEMS.values() if split in stems), ())
    for stem in stems:
        if (path / f"{stem}.json").exists():
            return path / f"{stem}.json"
    present = [
        name
        for name, stems in _STEMS.items()
        if any((path / f"{stem}.json").exists() for stem in stems)
    ]
    raise no_split(split, where=str(path), splits=present)


FORMAT = Format(
    "slake",
    "SLAKE, English unless asked otherwise",
    read,
    ("split", "images", "allow_paths_outside_root"),
)
