"""The longest sample of a reward phase must fit the decoder's positions."""

from __future__ import annotations

import pytest

from qvft.errors import RecipeError
from qvft.recipe.load import parse_recipe
from qvft.setup.model import base_of
from qvft.training.rewards.build import require_sample_positions


def test_samples_beyond_the_decoders_positions_are_refused() -> None:
    content = {"name": "r", "model": {"id": "qvft/tiny-blip2"}}
    for longest, fits in ((100, True), (5000, False)):
        reward = {"funcs": {"cider": 1.0}, "max_completion_length": longest}
        phases = [{"name": "reward", "objective": "reward"}]
        recipe = parse_recipe(content | {"reward": reward, "phases": phases})
        if fits:
            require_sample_positions(recipe, base_of(recipe))
            continue
        with pytest.raises(RecipeError, match=r"reward\.max_completion_length"):
            require_sample_positions(recipe, base_of(recipe))
