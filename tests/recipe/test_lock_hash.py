"""The hash of a recipe, from a recipe and from its lock."""

from __future__ import annotations

from pathlib import Path

import pytest

from qvft.recipe.load import parse_recipe
from qvft.recipe.recipe_lock import LOCK_NAME, lock_hash, read_lock, recipe_hash, write_lock
from qvft.recipe.schema import Recipe


@pytest.fixture
def recipe() -> Recipe:
    content = {
        "name": "x",
        "model": {"id": "m"},
        "train": {"learning_rate": {"adapters": 1.0e-4}, "max_grad_norm": 0},
    }
    return parse_recipe(content)


def test_a_lock_has_the_hash_of_its_recipe(recipe: Recipe, tmp_path: Path) -> None:
    write_lock(recipe, tmp_path)
    assert lock_hash(tmp_path) == recipe_hash(recipe) == recipe_hash(read_lock(tmp_path))


def test_a_lock_written_before_a_key_was_known_keeps_its_hash(
    recipe: Recipe, tmp_path: Path
) -> None:
    write_lock(recipe, tmp_path)
    before = lock_hash(tmp_path)
    lock = tmp_path / LOCK_NAME
    assert "  packing: true\n" in lock.read_text()
    lock.write_text(lock.read_text().replace("  packing: true\n", ""))
    older = lock_hash(tmp_path)
    assert older != before  # as a version without `packing` would have written it
    assert recipe_hash(read_lock(tmp_path)) == before


def test_what_is_done_about_spikes_makes_no_other_run(recipe: Recipe) -> None:
    content = recipe.model_dump()
    content["train"]["spike"]["policy"] = "skip"
    assert recipe_hash(parse_recipe(content)) == recipe_hash(recipe)
    content["train"]["max_grad_norm"] = 2.0
    assert recipe_hash(parse_recipe(content)) != recipe_hash(recipe)
