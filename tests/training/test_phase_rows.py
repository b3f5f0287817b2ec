"""What the rows of a phase are, and what is said where data has none for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qvft.data.sample import ImageFile, Pair, Sample
from qvft.errors import RecipeError
from qvft.recipe.load import parse_recipe
from qvft.recipe.phases import phase_plans
from qvft.recipe.source import Source
from qvft.setup.data import Split
from qvft.training.phase_rows import require_rows

PAIR = Pair(id="p", question=None, chosen="a man", rejected="a dog")


def refused(objective: str, **keys: Any) -> str:
    recipe = parse_recipe(
        {
            "name": "x",
            "model": {"id": "m"},
            "phases": [{"name": "only", "objective": objective}],
        }
    )
    sample = Sample("x", ImageFile(Path("x.png")), pairs=(PAIR,))
    split = Split("x", Source(path="x", **keys), [sample], [], "0")
    with pytest.raises(RecipeError) as caught:
        require_rows(phase_plans(recipe), split, training=True)
    return str(caught.value)


def test_pairs_that_texts_leaves_out_are_not_called_missing() -> None:
    said = refused("preference", texts="questions")
    assert said.startswith("data.train.texts: is questions")


def test_a_language_phase_names_the_objective_that_pairs_are_for() -> None:
    assert "objective: preference" in refused("language")
