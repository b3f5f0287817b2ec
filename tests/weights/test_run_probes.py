"""Which rows a written checkpoint is asked about."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from qvft.errors import RecipeError
from qvft.recipe.load import parse_recipe
from qvft.recipe.schema import Recipe
from qvft.setup.model import base_of
from qvft.weights.run_probes import require_rows


@pytest.fixture
def recipe_of(tmp_path: Path) -> Callable[[list[str]], Recipe]:
    """A function from captions, one per image, to a recipe with 8 tokens per text."""

    def recipe(captions: list[str]) -> Recipe:
        for number in range(len(captions)):
            Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
        rows = [
            json.dumps({"id": f"{number}", "image": f"{number}.png", "captions": [caption]})
            for number, caption in enumerate(captions)
        ]
        (tmp_path / "rows.jsonl").write_text("\n".join(rows))
        return parse_recipe(
            {
                "name": "r",
                "model": {"id": "qvft/tiny-blip2"},
                "data": {"eval": {"path": str(tmp_path / "rows.jsonl")}, "max_text_tokens": 8},
            }
        )

    return recipe


def test_rows_that_fit_are_found_behind_those_that_do_not(
    recipe_of: Callable[[list[str]], Recipe],
) -> None:
    recipe = recipe_of(["a red square and a blue circle and a green line"] * 20 + ["a circle"])
    assert [row.sample.id for row in require_rows(recipe, base_of(recipe))] == ["20"]


def test_data_with_pairs_alone_will_do(recipe_of: Callable[[list[str]], Recipe]) -> None:
    recipe = recipe_of(["a circle"])
    path = Path(recipe.data.eval.path)
    pair = {"chosen": "a circle", "rejected": "a square"}
    path.write_text(json.dumps({"image": "0.png", "pairs": [pair]}))
    assert [row.target for row in require_rows(recipe, base_of(recipe))] == ["a circle"]


def test_data_without_a_row_that_fits_is_refused_with_its_number(
    recipe_of: Callable[[list[str]], Recipe],
) -> None:
    recipe = recipe_of(["a red square and a blue circle and a green line"] * 20)
    with pytest.raises(RecipeError, match="each of the first 20 texts"):
        require_rows(recipe, base_of(recipe))
