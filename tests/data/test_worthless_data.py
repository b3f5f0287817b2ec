"""Data that nothing is broken in and that is worth little says so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from qvft.data.data_warnings import (
    FEW_STEPS,
    data_doubts,
    few_steps,
    prediction_doubts,
    prompts_repeated,
)
from qvft.data.rows import Row, evaluation_rows, training_rows
from qvft.data.sample import ImageFile, Question, Sample


@dataclass(frozen=True)
class Prompt:
    caption: str = "a photo of"
    question: str = "Question: {question} Answer:"


def rows(*, captions: list[str] | None = None, asked: list[tuple[str, str]] | None = None):
    return training_rows(samples(captions or [], asked or []))


def samples(captions: list[str], asked: list[tuple[str, str]]) -> list[Sample]:
    image = ImageFile(Path("a.png"))
    return [Sample(f"c{n}", image, (text,)) for n, text in enumerate(captions)] + [
        Sample(f"q{n}", image, questions=(Question(f"q{n}", question, (answer,)),))
        for n, (question, answer) in enumerate(asked)
    ]


def repeated(found: list[Row], prompt: Prompt) -> list[str]:
    return [text.partition(", which")[0] for text in prompts_repeated(found, prompt)]


def test_captions_that_begin_with_the_prompt_are_counted_by_whole_words() -> None:
    captions = ["A  photo of a dress", "a photo of", "a photo often seen", "a dress"]
    assert repeated(rows(captions=captions), Prompt()) == [
        "2 of 4 captions begin with 'a photo of'"
    ]
    assert repeated(rows(captions=captions), Prompt(caption="")) == []


def test_questions_that_bring_the_template_are_counted() -> None:
    asked = [("Question: is it? Answer:", "Answer: yes"), ("question:Is it?", "yes")]
    assert repeated(rows(asked=asked), Prompt()) == [
        "2 of 2 questions begin with 'Question:'",
        "1 of 2 questions end with 'Answer:'",
        "1 of 2 answers begin with 'Answer:'",
    ]
    assert repeated(rows(asked=asked), Prompt(question="{question}")) == []


def test_a_few_captions_may_begin_so_of_themselves() -> None:
    captions = ["a photo of it", *(f"number {n}" for n in range(99))]
    assert repeated(rows(captions=captions), Prompt()) == []


def test_one_answer_for_all_texts_is_said_of_each_kind() -> None:
    captions = [str(n) for n in range(10)]
    found = rows(captions=captions, asked=[("a?", "Yes"), ("b?", "yes ")])
    (said,) = data_doubts(found, Prompt(), images=12, training=True)
    assert said.startswith("all 2 questions have the same text as their targets")
    once = rows(captions=captions, asked=[("a?", "yes")])
    assert data_doubts(once, Prompt(), images=11, training=True) == []


def test_references_that_are_all_equal_are_said_and_others_not() -> None:
    same = samples(["one"] * 10, [])
    (said,) = data_doubts(evaluation_rows(same), Prompt(), images=10, training=False)
    assert "as their references" in said
    several = [*same, Sample("x", ImageFile(Path("a.png")), ("one", "two"))]
    assert data_doubts(evaluation_rows(several), Prompt(), images=11, training=False) == []


def test_images_without_a_text_are_counted() -> None:
    found = rows(captions=[str(n) for n in range(10)])
    (said,) = data_doubts(found, Prompt(), images=12, training=True)
    assert said == "2 of 12 images have no text of the kind that is used"


@pytest.mark.parametrize(("images", "count"), [(1, "1 image: "), (3, "3 images: "), (10, None)])
def test_few_images_are_said(images: int, count: str | None) -> None:
    captions = [str(n) for n in range(images)]
    said = data_doubts(rows(captions=captions), Prompt(), images=images, training=True)
    assert [text[: len(count or "")] for text in said] == ([count] if count else [])


def test_predictions_that_are_all_equal_are_said() -> None:
    assert prediction_doubts(["a", "A "])[0].startswith("all 2 predictions are the same text")
    assert prediction_doubts(["", " "])[0].startswith("all 2 predictions are empty")
    assert prediction_doubts(["a", "b"]) == prediction_doubts(["a"]) == prediction_doubts([]) == []


def test_a_phase_of_few_steps_is_said() -> None:
    assert few_steps("main", 1)[0].startswith("main: 1 optimizer step in all; raise")
    assert few_steps("main", FEW_STEPS) == []
