"""vqa_v2, vqa_rad, slake and pathvqa beyond what their folders in data_formats show."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from qvft.data.formats import read_samples
from qvft.data.sample import Question
from qvft.errors import DataError
from qvft.new_project.detect_format import detect

FORMATS = Path(__file__).resolve().parents[3] / "data_formats"


def questions(format: str, path: Path, **options) -> list[Question]:
    samples = read_samples(format, str(path), **options)
    return [question for sample in samples for question in sample.questions]


def test_vqa_v2_subset_has_ten_answers_a_question(shared_data: Path) -> None:
    folder = shared_data / "vqa_v2"
    asked = questions(
        "vqa_v2",
        folder,
        questions=str(folder / "test_questions.json"),
        annotations=str(folder / "test_annotations.json"),
    )
    assert (len(asked), {len(one.answers) for one in asked}) == (2962, {10})
    assert {one.meta["answer_type"] for one in asked} == {"yes/no", "number", "other"}


def test_vqa_v2_split_may_be_named_as_in_the_files() -> None:
    short = read_samples("vqa_v2", str(FORMATS / "vqa_v2"), split="train")
    assert read_samples("vqa_v2", str(FORMATS / "vqa_v2"), split="train2014") == short


def test_vqa_v2_split_that_is_not_there() -> None:
    with pytest.raises(DataError, match="split `val`; expected one of the splits: train"):
        questions("vqa_v2", FORMATS / "vqa_v2", split="val")


def test_vqa_v2_test_questions_have_no_answers(tmp_path: Path) -> None:
    source = FORMATS / "vqa_v2" / "v2_OpenEnded_mscoco_train2014_questions.json"
    name = "v2_OpenEnded_mscoco_test2015_questions.json"
    (tmp_path / name).write_text(source.read_text().replace("train2014", "test2015"))
    with pytest.raises(DataError, match="answers of VQA v2's test questions are not published"):
        questions("vqa_v2", tmp_path, split="test")


def test_vqa_v2_images_may_lie_apart(tmp_path: Path) -> None:
    (tmp_path / "000000000031.jpg").touch()
    first, second = read_samples(
        "vqa_v2", str(FORMATS / "vqa_v2"), split="train", images=str(tmp_path)
    )
    assert first.image.path == tmp_path / "000000000031.jpg"
    assert second.image.path == tmp_path / "COCO_train2014_000000000032.jpg"


@pytest.mark.parametrize(("split", "count"), [("train", 1797), ("test", 451)])
def test_vqa_rad_has_its_official_splits(shared_data: Path, split: str, count: int) -> None:
    samples = read_samples("vqa_rad", str(shared_data / "vqa_rad"), split=split)
    asked = [question for sample in samples for question in sample.questions]
    assert len(asked) == count
    assert {one.meta["answer_type"] for one in asked} == {"closed", "open"}
    assert {sample.meta["organ"] for sample in samples} == {"HEAD", "CHEST", "ABD"}
    assert all(sample.image.path.exists() for sample in samples)


def test_vqa_rad_is_whole_and_its_types_are_the_documented_eleven(shared_data: Path) -> None:
    folder = shared_data / "vqa_rad"
    asked = [
        one for split in ("train", "test") for one in questions("vqa_rad", folder, split=split)
    ]
    assert len({one.id for one in asked}) == 2248
    assert Counter(one.meta["answer_type"] for one in asked) == {"closed": 1299, "open": 949}
    assert {one.meta["question_type"] for one in asked} == {
        "PRES", "POS", "ABN", "OTHER", "MODALITY", "SIZE", "PLANE", "ATTRIB", "ORGAN", "COLOR",
        "COUNT",
    }  # fmt: skip
    images = {
        sample.id
        for split in ("train", "test")
        for sample in read_samples("vqa_rad", str(folder), split=split)
    }
    assert len(images) == 314


@pytest.fixture
def split_files(tmp_path: Path) -> Path:
    """VQA-RAD as `trainset.json`, `testset.json` and `images`, as medical VQA code lays it out."""
    rows = json.loads((FORMATS / "vqa_rad" / "VQA_RAD Dataset Public.json").read_text())
    for name in ("train", "test"):
        chosen = [row for row in rows if ("test" in row["phrase_type"]) == (name == "test")]
        (tmp_path / f"{name}set.json").write_text(json.dumps(chosen))
    shutil.copytree(FORMATS / "vqa_rad" / "VQA_RAD Image Folder", tmp_path / "images")
    return tmp_path


@pytest.mark.parametrize("split", ["train", "test"])
def test_vqa_rad_in_a_file_per_split_is_the_same_data(split_files: Path, split: str) -> None:
    published = read_samples("vqa_rad", str(FORMATS / "vqa_rad"), split=split)
    for path, given in ((split_files, split), (split_files / f"{split}set.json", None)):
        samples = read_samples("vqa_rad", str(path), split=given)
        assert [one.questions for one in samples] == [one.questions for one in published]
        assert all(one.image.path.parent == split_files / "images" for one in samples)
    with pytest.raises(DataError, match="no samples of split"):
        read_samples("vqa_rad", str(split_files / "trainset.json"), split="test")


def test_vqa_rad_in_a_file_per_split_is_detected(split_files: Path) -> None:
    found = detect(split_files)
    assert (found.format, found.splits) == ("vqa_rad", {"train": "train", "test": "test"})
    assert detect(split_files / "testset.json").splits == {"test": None}


@pytest.mark.parametrize("split", [None, "val"])
def test_vqa_rad_split_that_is_not_there(split: str | None) -> None:
    with pytest.raises(DataError, match="splits: test, train"):
        questions("vqa_rad", FORMATS / "vqa_rad", split=split)


@pytest.mark.parametrize(
    ("split", "ids"),
    [("train", "032"), ("train:zh", "1"), ("train:all", "0132"), ("val", "4"), ("validation", "4")],
)
def test_slake_split_and_language(split: str, ids: str) -> None:
    assert "".join(one.id for one in questions("slake", FORMATS / "slake", split=split)) == ids


def test_slake_split_or_language_that_is_not_there() -> None:
    with pytest.raises(DataError, match="split `test`; expected one of the splits: train, valid"):
        questions("slake", FORMATS / "slake", split="test")
    with pytest.raises(DataError, match="language `fr`.*expected one of en, zh, all"):
        questions("slake", FORMATS / "slake", split="train:fr")


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_pathvqa_rows_in_other_files_read_the_same(tmp_path: Path, suffix: str) -> None:
    source = FORMATS / "pathvqa"
    shutil.copytree(source / "images", tmp_path / "images")
    rows = json.loads((source / "train.json").read_text())
    if suffix == "csv":
        lines = ["image,question,answer"]
        lines += [",".join(f'"{row[key]}"' for key in row) for row in rows]
    else:
        lines = [json.dumps(row) for row in rows]
    (tmp_path / f"train.{suffix}").write_text("\n".join(lines) + "\n")
    expected = questions("pathvqa", source, split="train")
    assert questions("pathvqa", tmp_path, split="train") == expected


def test_pathvqa_rows_with_and_without_a_suffix_are_of_one_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    rows = [{"image": name, "question": "?", "answer": "no"} for name in ("a", "a.png")]
    (tmp_path / "val.json").write_text(json.dumps(rows))
    (sample,) = read_samples("pathvqa", str(tmp_path), split="val")
    assert (sample.id, len(sample.questions)) == ("a", 2)


def test_pathvqa_image_that_is_missing_is_left_to_the_image_check(tmp_path: Path) -> None:
    (tmp_path / "val.json").write_text('[{"image": "a", "question": "?", "answer": "no"}]')
    (sample,) = read_samples("pathvqa", str(tmp_path), split="validation")
    assert sample.image.path == tmp_path / "a"


@pytest.mark.parametrize(
    "content",
    [
        "image;question;answer\n1.png;what?;a dog, big\n",
        "image\tquestion\tanswer\n1.png\twhat?\ta dog, big\n",
        'Image, Question, Answer\n1.png, what?, "a dog, big"\n',
        '\ufeffanswer,note,image,question\r\n\r\n"a dog, big",,1.png,what?\r\n',
    ],
    ids=["semicolons", "tabs", "blanks and capitals", "other order, byte order mark, blank line"],
)
def test_pathvqa_reads_tables_as_programs_save_them(content: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(content.encode())
    (one,) = questions("pathvqa", tmp_path / "rows.csv")
    assert (one.text, one.answers) == ("what?", ("a dog, big",))


@pytest.mark.parametrize(("number", "said"), [("NaN", "NaN"), ("1e999", "Infinity")])
def test_an_answer_that_is_no_number_is_refused(number: str, said: str, tmp_path: Path) -> None:
    """Python's `json` writes NaN for an empty cell of a table."""
    (tmp_path / "rows.json").write_text(
        f'[{{"image": "a", "question": "What?", "answer": {number}}}]'
    )
    with pytest.raises(DataError, match=f"`answer` is {said}, which is not a JSON value"):
        read_samples("pathvqa", str(tmp_path / "rows.json"))
