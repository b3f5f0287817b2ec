"""Parquet files as streams."""

from __future__ import annotations

from pathlib import Path

import pytest
from tar_shards import png

from qvft.data.formats import open_stream, read_samples
from qvft.data.images.decoding import decode
from qvft.data.sample import Sample
from qvft.data.stream import Part
from qvft.errors import DataError

pytestmark = pytest.mark.usefixtures("datasets_cache")


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    """Two files of six rows, and a split of its own beside them."""
    import datasets

    folder = tmp_path / "rows"
    folder.mkdir()
    for file, first in (("train-0", 0), ("train-1", 6), ("test-0", 90)):
        rows = [
            {
                "image": {"bytes": png((first + n, 3, 3)), "path": None},
                "question": f"Which number is it, {first + n}?",
                "answer": str(first + n),
                "question_id": first + n,
            }
            for n in range(6)
        ]
        features = datasets.Features(
            image=datasets.Image(),
            question=datasets.Value("string"),
            answer=datasets.Value("string"),
            question_id=datasets.Value("int64"),
        )
        datasets.Dataset.from_list(rows, features=features).to_parquet(folder / f"{file}.parquet")
    return folder


def asked(path: Path, part: Part) -> list[str]:
    found = open_stream("hf", str(path), split="train").samples(part)
    return [one.questions[0].id for one in found if isinstance(one, Sample)]


def test_rows_are_those_of_the_list(parquet: Path) -> None:
    found = list(
        open_stream("hf", str(parquet), split="train").samples(Part(0, 0, 0, 1, shuffled=False))
    )
    listed = read_samples("hf", str(parquet), split="train")
    assert [one.questions for one in found] == [one.questions for one in listed]  # type: ignore
    first = found[0]
    assert isinstance(first, Sample)
    assert decode(first.image).tobytes() == decode(listed[0].image).tobytes()


@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_parts_of_a_pass_hold_each_row_once(parquet: Path, world: int) -> None:
    everything = sorted(str(number) for number in range(12))
    for number in range(2):
        parts = [asked(parquet, Part(number, 4, rank, world)) for rank in range(world)]
        assert sorted(sum(parts, [])) == everything


def test_a_pass_is_the_same_each_time_and_the_next_another(parquet: Path) -> None:
    orders = [asked(parquet, Part(number, 4, 0, 1)) for number in (0, 1, 0)]
    assert orders[0] == orders[2] != orders[1]


def test_a_broken_row_comes_as_its_error_and_the_rest_behind_it(tmp_path: Path) -> None:
    import datasets

    rows = [{"image": {"bytes": png((1, 2, n)), "path": None}, "text": t} for n, t in
            enumerate(["a", " ", "c"])]  # fmt: skip
    features = datasets.Features(image=datasets.Image(), text=datasets.Value("string"))
    path = tmp_path / "a.parquet"
    datasets.Dataset.from_list(rows, features=features).to_parquet(path)
    found = list(open_stream("hf", str(path)).samples(Part(0, 0, 0, 1, shuffled=False)))
    assert [type(one) for one in found] == [Sample, DataError, Sample]
    assert "row 1 of a pass: `text` is empty" in str(found[1])


def test_splits_are_named_where_there_are_several(parquet: Path) -> None:
    with pytest.raises(DataError, match="one of the splits: test, train"):
        open_stream("hf", str(parquet))


def test_what_is_no_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \.parquet file"):
        open_stream("hf", str(tmp_path))
    with pytest.raises(DataError, match="no such file or folder"):
        open_stream("hf", str(tmp_path / "a" / "b" / "c"))


def test_other_formats_are_listed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="one of hf, tar"):
        open_stream("jsonl", str(tmp_path))
