"""llava and sharegpt beyond what their folders in data_formats show."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from qvft.data.formats import read_samples
from qvft.data.sample import Sample
from qvft.errors import DataError


def said(*texts: str) -> list[dict[str, str]]:
    """A conversation that the user begins."""
    speakers = ("human", "gpt")
    return [{"from": speakers[n % 2], "value": text} for n, text in enumerate(texts)]


def read(format: str, folder: Path, *records: dict[str, Any], **options: Any) -> list[Sample]:
    (folder / "t.json").write_text(json.dumps(records))
    return read_samples(format, str(folder / "t.json"), **options)


def record(*texts: str, image: Any = "a.png", **more: Any) -> dict[str, Any]:
    return {"image": image, "conversations": said(*texts), **more}


def asked(sample: Sample) -> list[tuple[str, tuple[str, ...]]]:
    return [(one.text, one.answers) for one in sample.questions]


def test_records_of_one_image_are_one_sample(tmp_path: Path) -> None:
    rows = [record("<image>\nA?", "1", id=3), record("B?\n<image>", "2", id=3)]
    (sample,) = read("llava", tmp_path, *rows)
    assert asked(sample) == [("A?", ("1",)), ("B?", ("2",))]
    assert [one.id for one in sample.questions] == ["a.png#1", "a.png#2"]
    assert [one.meta for one in sample.questions] == [{"id": "3"}, {"id": "3"}]


@pytest.mark.parametrize("format", ["llava", "sharegpt"])
def test_what_is_left_out_is_counted(
    format: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("qvft").propagate = True
    rows = [
        record("A?", "1", "B?", "2", "C?"),
        record("text alone", "x", image=[]),
        record("which?", "x", image=["a.png", "b.png"]),
        {"image": "b.png", "conversations": [{"from": "gpt", "value": "hello"}]},
    ]
    rows[0]["conversations"].insert(0, {"from": "system", "value": "be kind"})
    with caplog.at_level(logging.WARNING):
        first, second = read(format, tmp_path, *rows)
    assert asked(first) == [("A?", ("1",)), ("B?", ("2",))]
    assert (second.captions, second.questions) == ((), ())
    for counted in (
        "1 records with no image",
        "1 records with several images",
        "1 system messages",
        "1 questions without answer",
        "1 answers without question",
        "1 earlier turns of later questions",
    ):
        assert counted in caplog.text


def test_a_second_question_in_a_row_replaces_the_first(tmp_path: Path) -> None:
    turns = [*said("A?"), *said("B?", "2")]
    (sample,) = read("llava", tmp_path, {"image": "a.png", "conversations": turns})
    assert asked(sample) == [("B?", ("2",))]


def test_messages_may_have_parts(tmp_path: Path) -> None:
    parts = [{"type": "image"}, {"type": "text", "text": "A?"}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": "1"}]
    (sample,) = read("sharegpt", tmp_path, {"messages": messages, "images": ["a.png"]})
    assert asked(sample) == [("A?", ("1",))]


def test_pairs_keep_the_questions_before_them(tmp_path: Path) -> None:
    row = record("A?", "1", "B?", chosen="yes", rejected=[{"role": "assistant", "content": "no"}])
    (sample,) = read("sharegpt", tmp_path, row)
    assert asked(sample) == [("A?", ("1",))]
    (pair,) = sample.pairs
    assert (pair.question, pair.chosen, pair.rejected) == ("B?", "yes", "no")


@pytest.mark.parametrize("format", ["llava", "sharegpt"])
def test_lines_and_splits_are_read(format: str, tmp_path: Path) -> None:
    (tmp_path / "val.jsonl").write_text(json.dumps(record("A?", "1")) + "\n")
    assert len(read_samples(format, str(tmp_path), split="val")) == 1
    with pytest.raises(DataError, match="one of the splits: val"):
        read_samples(format, str(tmp_path))


@pytest.mark.parametrize("format", ["llava", "sharegpt"])
def test_paths_that_lead_out_are_refused_where_the_recipe_says_so(
    format: str, tmp_path: Path
) -> None:
    row = record("A?", "1", image="../secret.png")
    with pytest.raises(DataError, match="record 0: the image .* lies outside"):
        read(format, tmp_path, row, allow_paths_outside_root=False)
    assert len(read(format, tmp_path, row)) == 1
