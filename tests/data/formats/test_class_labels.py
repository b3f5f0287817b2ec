"""A class of a Hugging Face dataset is read as its name, however the dataset is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tar_shards import png

from qvft.data.formats import open_stream, read_samples
from qvft.data.sample import Sample
from qvft.data.stream import Part
from qvft.errors import DataError

pytestmark = pytest.mark.usefixtures("datasets_cache")


def dataset(**changes: Any) -> Any:
    """Two rows, with a class for every text that may be one."""
    import datasets
    from datasets import ClassLabel, Features, List, Value

    rows = {
        "image": [{"bytes": png((shade, 0, 0)), "path": None} for shade in (10, 200)],
        "captions": [[0, 1], [1]],
        "question": ["Which animal?", "Which one?"],
        "answers": [[{"answer": 1}, {"answer": 0}], [{"answer": 0}]],
        "question_type": [0, 0],
        "id": [11, 12],
        **changes,
    }
    animals = ClassLabel(names=["cat", "dog"])
    features = Features(
        image=datasets.Image(),
        captions=List(ClassLabel(names=["an animal", "a pet"])),
        question=Value("string"),
        answers=List({"answer": animals}),
        question_type=ClassLabel(names=["what"]),
        id=Value("int64"),
    )
    return datasets.Dataset.from_dict(rows, features=features)


@pytest.fixture(params=["saved", "parquet", "stream"])
def samples(request: pytest.FixtureRequest, tmp_path: Path) -> list[Sample]:
    if request.param == "saved":
        dataset().save_to_disk(tmp_path / "saved")
        return read_samples("hf", str(tmp_path / "saved"))
    file = tmp_path / "rows.parquet"
    dataset().to_parquet(file)
    if request.param == "parquet":
        return read_samples("hf", str(file))
    found = open_stream("hf", str(file)).samples(Part(0, 0, 0, 1, shuffled=False))
    return [one for one in found if isinstance(one, Sample)]


def test_classes_are_read_by_name_in_lists_and_objects_too(samples: list[Sample]) -> None:
    assert [one.captions for one in samples] == [("an animal", "a pet"), ("a pet",)]
    asked = [question for one in samples for question in one.questions]
    assert [one.answers for one in asked] == [("dog", "cat"), ("cat",)]
    assert [one.meta["question_type"] for one in asked] == ["what", "what"]
    assert [one.id for one in asked] == ["11", "12"]


def test_a_plain_answer_of_a_class_is_its_name(tmp_path: Path) -> None:
    import datasets

    rows = dataset().remove_columns(["captions", "answers"])
    rows = rows.add_column("answer", [1, 0]).cast_column(
        "answer", datasets.ClassLabel(names=["benign", "malignant"])
    )
    rows.to_parquet(tmp_path / "d.parquet")
    for format in ("hf", "pathvqa"):
        found = read_samples(format, str(tmp_path / "d.parquet"))
        answers = [question.answers for one in found for question in one.questions]
        assert answers == [("malignant",), ("benign",)]


def test_no_label_is_refused_with_its_row(tmp_path: Path) -> None:
    dataset(question_type=[0, -1]).to_parquet(tmp_path / "d.parquet")
    with pytest.raises(
        DataError, match="row 1: `question_type` is class -1; expected a class from 0 to 0"
    ):
        read_samples("hf", str(tmp_path / "d.parquet"))
