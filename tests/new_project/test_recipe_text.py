"""What a new project's recipe takes from the data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from qvft.models.model_path import TINY_ID
from qvft.new_project.fitting_base import NF4, OPT
from qvft.new_project.recipe_text import DataFacts, recipe_of, recipe_text
from qvft.recipe.load import load_recipe, parse_recipe
from qvft.recipe.schema import Recipe

FACTS = DataFacts(
    images=100, texts=300, longest_answer=3, longest_caption=9, begins_with_photo=False
)


def made(model: str = OPT, rows: int = 4, **changes: object) -> Recipe:
    facts = replace(FACTS, **changes)
    return parse_recipe(recipe_of("x", {"id": model}, rows, "out", facts, outside=False))


def test_the_prompt_is_not_said_twice() -> None:
    assert made().data.prompt.caption == "a photo of"
    assert made(begins_with_photo=True).data.prompt.caption == ""


@pytest.mark.parametrize("rows", [1, 4, 16])
def test_a_step_has_sixteen_texts_on_any_gpu(rows: int) -> None:
    train = made(rows=rows).train
    assert train.per_device_train_batch_size * train.gradient_accumulation_steps == 16


@pytest.mark.parametrize(("texts", "batch"), [(200, 16), (5000, 64)])
def test_little_data_is_seen_often(texts: int, batch: int) -> None:
    train = made(TINY_ID, texts=texts).train
    assert train.per_device_train_batch_size == batch
    assert 300 < train.epochs * texts / batch < 600


@pytest.mark.parametrize("model", [{"id": OPT, "quantization": NF4}, {"id": TINY_ID}])
def test_the_text_reads_as_the_recipe(model: dict, tmp_path: Path) -> None:
    recipe = recipe_of("x", model, 4, "out", FACTS, outside=True)
    (tmp_path / "r.yaml").write_text(recipe_text(recipe, ["a comment: with a colon"]))
    assert load_recipe(tmp_path / "r.yaml") == parse_recipe(recipe)
