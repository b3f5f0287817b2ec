"""What rows come to in tokens is what the collator makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from qvft.data.packing import packed
from qvft.data.prompt import PromptTemplate
from qvft.data.rows import Row, training_rows
from qvft.data.token_stats import row_tokens
from qvft.models.load import load_processor
from qvft.recipe.load import load_recipe
from qvft.setup.data import read_texts
from qvft.setup.model import base_of
from qvft.setup.prompt_template import template_of


@pytest.fixture(scope="module")
def split(recipe_file: Path) -> tuple[list[Row], PromptTemplate]:
    recipe = load_recipe(recipe_file, ["data.train.limit=4", "data.max_text_tokens=8"])
    base = base_of(recipe)
    template = template_of(recipe, base, load_processor(base))
    return training_rows(read_texts(recipe, "train")), template


def test_lengths_and_labels_are_those_of_the_rows(split: tuple[list[Row], PromptTemplate]) -> None:
    rows, template = split
    found = row_tokens(rows, template, shares=False)
    one_by_one = [template.encode(r.kind, question=r.question, target=r.target) for r in rows]
    assert any(tokens.cut_tokens for tokens in one_by_one)  # texts that are cut count as cut
    assert found.prefix == 0
    assert found.own.tolist() == [len(tokens.ids) for tokens in one_by_one]
    assert found.labels.tolist() == [len(t.ids) - t.target_start for t in one_by_one]


def test_rows_of_an_image_come_to_what_they_are_packed_to(
    split: tuple[list[Row], PromptTemplate],
) -> None:
    rows, template = split
    captions = [row for row in rows if row.kind == "caption"]
    questions = [row for row in rows if row.kind == "question"][:1]
    both = [captions[0], *questions]  # of one image, whose words differ from the first
    found = row_tokens(both, template, shares=True)
    ids = [template.encode(r.kind, question=r.question, target=r.target).ids for r in both]
    layout = packed(ids, [0, 0], budget=1)
    assert found.prefix + found.own.sum() == layout["packed_source"].shape[1]
