"""`data.*.captions_per_image`: the first captions of each image."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qvft.data.rows import training_rows
from qvft.errors import RecipeError
from qvft.recipe.schema import Recipe
from qvft.setup.data import read_split, read_texts
from qvft.setup.streaming import stream_of


def recipe_of(shapes: Path, tmp_path: Path, **train: object) -> Recipe:
    images = [str(shapes / f"train{number}.png") for number in range(2)]
    rows = [
        {"id": "a", "image": images[0], "captions": ["one", "two", "three"]},
        {
            "id": "b",
            "image": images[1],
            "captions": ["four"],
            "questions": [{"question": "What?", "answers": ["five"]}],
        },
    ]
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    source = {"path": str(path), "allow_paths_outside_root": True, **train}
    content = {"name": "x", "model": {"id": "qvft/tiny-blip2"}, "data": {"train": source}}
    return Recipe.model_validate(content)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (None, ["one", "two", "three", "four", "five"]),
        (2, ["one", "two", "four", "five"]),
        (1, ["one", "four", "five"]),
    ],
)
def test_the_first_captions_are_used_and_questions_stay(
    shapes: Path, tmp_path: Path, count: int | None, expected: list[str]
) -> None:
    recipe = recipe_of(shapes, tmp_path, captions_per_image=count)
    rows = training_rows(read_texts(recipe, "train"))
    assert [row.target for row in rows] == expected


def test_other_texts_are_other_data(shapes: Path, tmp_path: Path) -> None:
    hashes = {
        read_split(recipe_of(shapes, tmp_path, captions_per_image=count), "train").sha256
        for count in (None, 1, 2)
    }
    assert len(hashes) == 3


def test_a_stream_does_not_take_it(shapes: Path, tmp_path: Path) -> None:
    tar = {"format": "tar", "allow_paths_outside_root": False}
    recipe = recipe_of(shapes, tmp_path, captions_per_image=1, **tar)
    with pytest.raises(RecipeError, match="captions_per_image"):
        stream_of(recipe)
