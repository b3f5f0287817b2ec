"""What a recipe may not ask of a stream."""

from __future__ import annotations

from typing import Any

import pytest

from qvft.errors import RecipeError
from qvft.recipe.load import merge, parse_recipe

STREAMED: dict[str, Any] = {
    "name": "a",
    "model": {"id": "qvft/tiny-blip2"},
    "data": {"train": {"format": "tar", "path": "a.tar", "stream": True}},
    "train": {"max_steps": 10},
}


def test_a_stream_with_its_number_of_steps_is_a_recipe() -> None:
    assert parse_recipe(STREAMED).data.train.stream  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"train": {"max_steps": -1}}, "train.max_steps is not set"),
        ({"train": {"batch_tokens": 500}}, "train.batch_tokens plans an epoch"),
        ({"data": {"train": {"limit": 5}}}, "data.train.limit has no use"),
        ({"data": {"cache_images": True, "num_workers": 0}}, "keep all images of the stream"),
        ({"data": {"eval": {"format": "tar", "stream": True}}}, "data.eval.stream"),
        ({"eval": {"retention": [{"path": "a"}, {"path": "b", "stream": True}]}}, "retention.1.st"),
        ({"phases": [{"name": "b", "train": {"max_steps": -1}}]}, "phases.b.train.max_steps"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_stream_cannot_give_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        parse_recipe(merge(STREAMED, changes))
