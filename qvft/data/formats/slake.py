"""SLAKE: `train.json`, `validation.json`, `test.json` and `imgs/xmlab*/source.jpg`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from qvft.data.formats import fields
from qvft.data.formats.format import IMAGE_OPTIONS, Format
from qvft.data.formats.path_guard import PathGuard
from qvft.data.formats.sample_builder import SampleBuilder, Unique, existing, image_folder, no_split
from qvft.data.sample import Question, Sample
from qvft.errors import DataError
from qvft.json_files import read_json
from qvft.log import get_logger

_log = get_logger(__name__)

_STEMS = {"train": ("train",), "validation": ("validation", "validate", "val"), "test": ("test",)}
_TEXT_KEYS = ("img_name", "question", "answer_type", "content_type", "location", "modality")
_LANGUAGES = ("en", "zh", "all")


def read(
    path: Path,
    *,
    split: str | None = None,
    images: Path | None = None,
    allow_paths_outside_root: bool | None = None,
) -> Iterator[Sample]:
    """Samples with their questions in English, or in the language that the split names.

    A question's meta has `answer_type` (`closed` or `open`), `content_type` and `language`, a
    sample's has `location` and `modality`.

    Args:
        path: the folder, or one of its JSON files (then `split` is only a label).
        split: `train`, `validation` (`val`) or `test`; `test:zh` takes the Chinese questions,
            `test:all` both languages.
        images: the image folder; None: `imgs` beside the file.
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
    guard = PathGuard(
        image_folder(images or file.parent / "imgs"),
        allow_paths_outside_root=allow_paths_outside_root,
    )
    found: dict[str, SampleBuilder] = {}
    ids = Unique("qid")
    skipped = 0
    for place, row in fields.records(read_json(file), where=str(file)):
        qid = row.identifier("qid")
        row.where = f"{file}, qid {qid}"
        row_language = row.text("q_lang")
        if language not in ("all", row_language):
            skipped += 1
            continue
        ids.add(qid, where=place)
        texts = {key: row.text(key) for key in _TEXT_KEYS}
        written = Path(texts["img_name"].replace("\\", "/"))
        sample = found.setdefault(
            str(written),
            SampleBuilder(
                written.parent.name or written.stem,
                guard.image(texts["img_name"], "img_name", where=row.where),
                meta={key: texts[key] for key in ("location", "modality")},
            ),
        )
        meta = {
            "answer_type": texts["answer_type"].lower(),
            "content_type": texts["content_type"],
            "language": row_language,
        }
        sample.questions.append(Question(qid, texts["question"], (row.answer("answer"),), meta))
    if skipped:
        _log.info("%s: %d questions are in another language than %s", file, skipped, language)
    yield from (one.sample() for one in found.values())


def _file(path: Path, *, split: str | None) -> Path:
    if not existing(path).is_dir():
        return path
    for stem in next((stems for stems in _STEMS.values() if split in stems), ()):
        if (path / f"{stem}.json").exists():
            return path / f"{stem}.json"
    files = {file.stem for file in path.glob("*.json")}
    present = [name for name, stems in _STEMS.items() if files & set(stems)]
    raise no_split(split, where=str(path), splits=present)


FORMAT = Format("slake", "SLAKE, English unless asked otherwise", read, IMAGE_OPTIONS)
