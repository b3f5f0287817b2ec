"""Captions and questions as BLIP-2's own program cleans them, held against its recorded texts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qvft.data.blip_text import MAX_WORDS, clean_caption, clean_question
from qvft.data.rows import Row
from qvft.data.sample import ImageFile, Question, Sample
from qvft.data.stream import Part
from qvft.data.text_cleaning import TextsLeft, cleaned_rows, require_text_left
from qvft.errors import DataError


@pytest.fixture(scope="module")
def recorded(shared_data: Path) -> dict[str, Any]:
    file = shared_data / "reference" / "lavis_opt" / "text_cleaning.json"
    if not file.is_file():
        pytest.skip(f"no recorded texts: {file} is absent")
    return json.loads(file.read_text())


def test_captions_and_questions_are_lavis(recorded: dict[str, Any]) -> None:
    rows = recorded["rows"]
    assert len(rows) >= 10 and recorded["max_words"] == MAX_WORDS
    for row in rows:
        assert clean_caption(row["text"]) == row["as_caption"]
        assert clean_question(row["text"]) == row["as_question"]


def test_a_limit_of_words_and_a_prompt_are_lavis(recorded: dict[str, Any]) -> None:
    for row in recorded["rows"]:
        text = "a photo of " + clean_caption(row["text"], max_words=12)
        assert text == row["as_caption_prompt_a_photo_of_max_words_12"]


@pytest.mark.parametrize(
    ("text", "caption", "question"),
    [
        ("A Dog.", "a dog", "a dog"),
        ("Is it 3.5 (wide)?", "is it 3 5 wide ?", "is it 35 wide?"),
        ('"Hi" - #1: a; b ~ c*!', "hi - 1 a b c", "hi - 1 a b  c"),
        (" a\tb ", "a\tb", " a\tb"),
        ("...", "", ""),
    ],
)
def test_each_rule(text: str, caption: str, question: str) -> None:
    assert (clean_caption(text), clean_question(text)) == (caption, question)


def row(number: int, *, caption: str = "", question: str | None = None) -> Row:
    kind = "caption" if question is None else "question"
    sample = Sample(str(number), ImageFile(Path("x.png")))
    return Row(str(number), sample, kind, question, caption or "Yes.", (), {})


ROWS = [
    row(1, caption="a dog"),
    row(2, caption="A dog."),
    row(3, question="is it red?"),
    row(4, question="Is it red?"),
    row(5, question="what  is it?"),
    row(6, caption="word " * (MAX_WORDS + 1)),
]


def test_changed_rows_are_counted_and_answers_are_not() -> None:
    assert cleaned_rows(ROWS, "blip2") == (3, ("6",))
    assert cleaned_rows(ROWS, "as_written") == (0, ())


class Listed:
    """A stream of a few samples, one of them broken."""

    sha256 = "0"

    def samples(self, part: Part) -> Iterator[Sample | DataError]:
        image = ImageFile(Path("x.png"))
        yield Sample("1", image, captions=("A dog.",))
        yield Sample("2", image, captions=("a cat", "..."))
        yield DataError("broken", where="3")
        yield Sample("4", image, questions=(Question("q", "?!", ("...",)),))


def test_a_streamed_text_of_which_nothing_is_left_is_a_broken_record() -> None:
    part = Part(0, 0, 0, 1)
    found = list(TextsLeft(Listed(), "all", "blip2").samples(part))
    assert [isinstance(one, DataError) for one in found] == [False, True, True, False]
    assert [one.where for one in found if isinstance(one, DataError)] == ["2", "3"]
    kept = list(TextsLeft(Listed(), "all", "as_written").samples(part))
    assert [isinstance(one, DataError) for one in kept] == [False, False, True, False]


def test_a_text_of_which_nothing_is_left_is_refused() -> None:
    rows = [*ROWS, row(7, caption="..."), row(8, question="!")]
    with pytest.raises(DataError, match=r"nothing of 2 texts: 7, 8"):
        require_text_left(rows, "blip2", where="data.train")
    require_text_left(ROWS, "blip2", where="data.train")
    require_text_left(rows, "as_written", where="data.train")
