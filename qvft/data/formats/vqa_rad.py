"""VQA-RAD: the published JSON file, or `trainset.json` and `testset.json`, and radiology images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from qvft.data.formats import fields
from qvft.data.formats.format import IMAGE_OPTIONS, Format
from qvft.data.formats.path_guard import PathGuard
from qvft.data.formats.sample_builder import SampleBuilder, Unique, image_folder, no_split
from qvft.data.sample import Question, Sample
from qvft.errors import DataError
from qvft.json_files import read_json

FILE = "VQA_RAD Dataset Public.json"
SPLIT_FILES = {"train": "trainset.json", "test": "testset.json"}
"""The layout of medical VQA code since MEVF (Nguyen et al., 2019): a file per split, images beside
it in `images`; each record as in the published file."""
_IMAGES = ("VQA_RAD Image Folder", "images", "image", "imgs", "VQA_RAD_Image")
_SPLITS = {"freeform": "train", "para": "train", "test_freeform": "test", "test_para": "test"}
_TEXT_KEYS = (
    "phrase_type", "image_name", "image_organ", "question", "question_type", "answer_type",
)  # fmt: skip
_MISSPELT = {"ATRIB": "ATTRIB", "PRSE": "PRES"}


def read(
    path: Path,
    *,
    split: str | None = None,
    images: Path | None = None,
    allow_paths_outside_root: bool | None = None,
) -> Iterator[Sample]:
    """Samples of the official train or test questions, about 314 images.

    A question's meta has `answer_type` (`closed` or `open`), `question_type` (the first one given,
    in capitals, two misspellings corrected), `question_types` (all, joined by commas),
    `phrase_type`; a sample's has `organ`. Train and test share images: the split is one of
    questions.

    Args:
        path: the folder, or a JSON file.
        split: `train` or `test`, from `phrase_type`; of a file of `SPLIT_FILES` the file says it.
        images: the image folder; None: `VQA_RAD Image Folder` or `images` beside the file.
    """
    file = path
    if path.is_dir():
        names = (FILE, SPLIT_FILES.get(split or "", FILE))
        file = next((path / name for name in names if (path / name).exists()), path / FILE)
    content = read_json(file)
    of_file = next((name for name, one in SPLIT_FILES.items() if one == file.name), None)
    split = split or of_file
    if split not in ((of_file,) if of_file else SPLIT_FILES):
        raise no_split(split, where=str(file), splits=(of_file,) if of_file else SPLIT_FILES)
    beside = [file.parent / name for name in _IMAGES]
    guard = PathGuard(
        image_folder(images or next((one for one in beside if one.is_dir()), beside[0])),
        allow_paths_outside_root=allow_paths_outside_root,
    )
    found: dict[str, SampleBuilder] = {}
    ids = Unique("qid")
    for place, row in fields.records(content, where=str(file)):
        qid = row.identifier("qid")
        ids.add(qid, where=place)
        row.where = f"{file}, qid {qid}"
        texts = {key: row.text(key) for key in _TEXT_KEYS}
        phrase, name = texts["phrase_type"], texts["image_name"]
        if phrase not in _SPLITS:
            raise DataError(
                "`phrase_type` has an unknown value",
                where=row.where,
                expected="one of " + ", ".join(_SPLITS),
                do="correct it; it says which split the question is in",
            )
        if (of_file or _SPLITS[phrase]) != split:
            continue
        given = texts["question_type"].upper().replace(" ", "").split(",")
        types = [_MISSPELT.get(one, one) for one in given]
        meta = {
            "answer_type": texts["answer_type"].lower(),
            "question_type": types[0],
            "question_types": ",".join(types),
            "phrase_type": phrase,
        }
        image = guard.image(name, "image_name", where=row.where)
        organ = {"organ": texts["image_organ"].upper()}
        sample = found.setdefault(name, SampleBuilder(Path(name).stem, image, meta=organ))
        sample.questions.append(Question(qid, texts["question"], (row.answer("answer"),), meta))
    yield from (one.sample() for one in found.values())


FORMAT = Format(
    "vqa_rad", "VQA-RAD as published, or as trainset.json and testset.json", read, IMAGE_OPTIONS
)
