"""Rows that `data.max_text_tokens` cuts are counted, prompts and targets apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_models

from qvft.data.prompt import PromptTemplate
from qvft.data.rows import Row
from qvft.data.sample import ImageFile, Sample
from qvft.data.truncation import cut_rows, too_long
from tools.tiny_blip2.geometry import QUERY_TOKENS, VOCABULARY_SIZE

LONG = "very " * 30
SAMPLE = Sample("s", ImageFile(Path("a.png")))


@pytest.fixture(scope="module")
def template() -> PromptTemplate:
    tokenizer: Any = tiny_models.tokenizer()
    return PromptTemplate(tokenizer, QUERY_TOKENS, VOCABULARY_SIZE - 1, "\n", max_text_tokens=24)


def row(id: str, question: str | None, target: str) -> Row:
    kind = "caption" if question is None else "question"
    return Row(id, SAMPLE, kind, question, target, (target,), {})


def test_prompts_and_targets_are_counted_apart(template: PromptTemplate) -> None:
    rows = [
        row("whole", "How many?", "two"),
        row("prompt", LONG, "yes"),
        row("target", "How many?", LONG),
        row("caption", None, LONG),
        row("both", LONG, LONG),
    ]
    found = cut_rows(rows, template)
    one_by_one = [template.encode(r.kind, question=r.question, target=r.target) for r in rows]
    assert (found.rows, found.prompts, found.targets, found.first) == (5, 2, 3, "prompt")
    assert found.tokens == sum(one.cut_tokens for one in one_by_one)
    (said,) = found.warning(24)
    assert "cuts 2 prompts (at their beginning) and 3 targets (at their end)" in said


def test_both_texts_of_a_pair_are_counted(template: PromptTemplate) -> None:
    pairs = [
        replace(row("rejected", None, "a cat"), rejected=LONG),
        replace(row("chosen", None, LONG), rejected="a cat"),
    ]
    found = cut_rows(pairs, template)
    assert (found.rows, found.targets, found.first) == (4, 2, "rejected")


def test_as_a_model_is_asked_no_target_takes_the_prompts_room(template: PromptTemplate) -> None:
    words = "one two three four five six seven one two three"
    asked = [row("a", words, LONG)]
    assert cut_rows(asked, template).prompts == 1
    found = cut_rows(asked, template, asked=True)
    assert (found.prompts, found.targets) == (0, 1)


def test_nothing_is_said_where_nothing_is_cut(template: PromptTemplate) -> None:
    assert cut_rows([row("a", "How many?", "two")], template).warning(24) == []
    assert cut_rows([], template).warning(24) == []


def test_texts_that_are_too_long_for_a_reader_are_counted_each_time(
    template: PromptTemplate,
) -> None:
    texts = ["one two", "one", "one two", "one two three"]
    lengths = [len(template.tokenizer(text)["input_ids"]) for text in texts]
    assert too_long(texts, template.tokenizer, min(lengths)) == sum(
        length > min(lengths) for length in lengths
    )
    assert too_long(texts, template.tokenizer, max(lengths)) == 0
    assert too_long([], template.tokenizer, 1) == 0
