"""Lists of data sources in recipes: what is refused, and overrides of one and of all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qvft.errors import RecipeError
from qvft.recipe.load import idle_keys, load_recipe, parse_recipe
from qvft.recipe.recipe_lock import read_lock, recipe_hash, shaping_differences, write_lock

MINIMAL: dict[str, Any] = {"name": "x", "model": {"id": "m"}}
TWO = [{"path": "a.jsonl"}, {"path": "b.jsonl", "prompt": {"caption": "it shows"}}]


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"train": []}, "data.train"),
        ({"train": [{"path": "a", "wieght": 1}]}, "data.train.0.wieght"),
        ({"train": [{"path": "a", "weight": 1}, {"path": "b"}]}, "data.train.1.weight"),
        ({"train": [{"path": "a", "stream": True}]}, "data.train.0.stream"),
        ({"eval": [{"path": "a", "weight": 1}]}, "data.eval.0.weight"),
        ({"eval": {"path": "a", "answers": "first"}}, "data.eval.answers"),
        ({"train": [{"path": "a", "prompt": {"question": "Q"}}]}, "data.train.0.prompt.question"),
        (
            {"train": [{"path": "a", "weight": 1}], "mixing_temperature": 2.0},
            "data.mixing_temperature",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_by_its_key(data: dict[str, Any], key: str) -> None:
    with pytest.raises(RecipeError) as error:
        parse_recipe({**MINIMAL, "data": data})
    assert key in str(error.value)


@pytest.mark.parametrize("key", ["train.weight", "mixing_temperature", "stopping_strategy"])
def test_mixing_one_source_has_no_effect(key: str) -> None:
    recipe = parse_recipe({**MINIMAL, "data": {"train": {"path": "a"}}})
    assert f"data.{key}" in idle_keys(recipe)
    assert f"data.{key}" not in idle_keys(
        parse_recipe({**MINIMAL, "data": {"train": TWO, "mixing_temperature": 2.0}})
    )


def write(folder: Path, data: str) -> Path:
    path = folder / "r.yaml"
    path.write_text(f"name: x\nmodel: {{id: m}}\ndata: {data}\n")
    return path


def test_overrides_name_a_source_or_all(tmp_path: Path) -> None:
    path = write(tmp_path, "{train: [{path: a}, {path: b}], eval: {path: c}}")
    recipe = load_recipe(path, ["data.train.1.path=d", "data.train.limit=3", "data.eval.limit=2"])
    assert [(one.path, one.limit) for _, one in recipe.data.sources("train")] == [
        ("a", 3),
        ("d", 3),
    ]
    assert [(key, one.limit) for key, one in recipe.data.sources("eval")] == [("eval", 2)]
    assert not load_recipe(path, ["data.train={path: d}"]).data.lists("train")
    for wrong in ("data.train.path=d", "data.train.2.path=d"):
        with pytest.raises(RecipeError, match="has 2 sources"):
            load_recipe(path, [wrong])


def test_a_list_comes_back_from_a_lock_with_its_notes_as_comments(tmp_path: Path) -> None:
    recipe = parse_recipe({**MINIMAL, "data": {"train": TWO}})
    write_lock(recipe, tmp_path, ["source a: 2 images"])
    assert "# source a: 2 images\n" in (tmp_path / "recipe.lock.yaml").read_text()
    assert read_lock(tmp_path) == recipe
    other = read_lock(tmp_path, ["data.train.1.prompt.caption=a photo of"])
    assert shaping_differences(recipe, other) == [
        ("data.train.1.prompt.caption", "it shows", "a photo of")
    ]
    # Who may read which files has no effect on weights.
    assert recipe_hash(read_lock(tmp_path, ["data.train.allow_paths_outside_root=true"])) == (
        recipe_hash(recipe)
    )
