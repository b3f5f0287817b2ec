"""The resolved recipe of a run, and when two recipes are the same run."""

import os
from pathlib import Path

import pytest

from qvft.errors import CheckpointError
from qvft.recipe.load import load_recipe, parse_recipe
from qvft.recipe.recipe_lock import (
    LOCK_NAME,
    read_lock,
    recipe_hash,
    shaping_differences,
    write_lock,
)

RECIPE = {
    "name": "x",
    "model": {"id": "m"},
    "train": {"learning_rate": {"qformer": 1e-7}, "epochs": 0.5},
    "data": {"train": {"path": "no"}, "prompt": {"caption": "naïve: {a} #1"}},
    "phases": [{"name": "a", "train": {"epochs": 2}}],
}


def changed(**sections: dict) -> str:
    content = {**RECIPE, **{key: {**RECIPE.get(key, {}), **v} for key, v in sections.items()}}
    return recipe_hash(parse_recipe(content))


def test_a_lock_reads_back_as_the_recipe_it_was_written_from(tmp_path: Path) -> None:
    recipe = parse_recipe(RECIPE)
    write_lock(recipe, tmp_path)
    assert read_lock(tmp_path) == recipe
    assert load_recipe(tmp_path / LOCK_NAME) == recipe


def test_a_lock_holds_every_default(tmp_path: Path) -> None:
    write_lock(parse_recipe(RECIPE), tmp_path)
    text = (tmp_path / LOCK_NAME).read_text()
    assert "weight_decay: 0.05" in text
    assert "max_text_tokens: 128" in text


def test_overrides_lie_over_a_lock(tmp_path: Path) -> None:
    write_lock(parse_recipe(RECIPE), tmp_path)
    assert read_lock(tmp_path, ["eval.batch_size=3"]).eval.batch_size == 3


def test_a_folder_without_a_lock_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected the folder of a qvft.train run"):
        read_lock(tmp_path)


@pytest.mark.parametrize(
    "sections",
    [
        {"run": {"dir": "elsewhere"}},
        {"train": {"resume": "auto"}},
        {
            "train": {
                "logging_steps": 1,
                "report_to": ["tensorboard"],
                "save_steps": 7,
                "save_total_limit": 9,
            }
        },
        {"data": {"num_workers": 0}},
        {"eval": {"batch_size": 1, "report_images": 0}},
        {"eval": {"rerank": 3, "classes": ["a", "b"], "class_prompts": ["{}"]}},
    ],
)
def test_what_does_not_shape_the_weights_is_the_same_run(sections: dict) -> None:
    assert changed(**sections) == changed()


@pytest.mark.parametrize(
    "sections",
    [
        {"run": {"seed": 1}},
        {"train": {"epochs": 1.0}},
        {"data": {"max_text_tokens": 64}},
        {"trainable": {"vision": "full"}},
        {"model": {"id": "other"}},
        {"objectives": {"itc": 0.5}},
    ],
)
def test_what_shapes_the_weights_is_another_run(sections: dict) -> None:
    assert changed(**sections) != changed()


def test_what_makes_it_another_run_is_named_with_both_values() -> None:
    there = parse_recipe(RECIPE)
    here = parse_recipe(
        {
            **RECIPE,
            "train": {"learning_rate": {"qformer": 1e-6}, "epochs": 0.5, "save_steps": 9},
            "phases": [{"name": "a", "train": {"epochs": 3}}, {"name": "b"}],
        }
    )
    assert shaping_differences(there, there) == []
    found = {key: (one, other) for key, one, other in shaping_differences(there, here)}
    assert found["train.learning_rate.qformer"] == (1e-7, 1e-6)
    assert found["phases.0.train.epochs"] == (2, 3)
    assert found["phases.1.name"] == (None, "b")
    assert "train.save_steps" not in found  # how often a run is saved makes it no other


@pytest.mark.parametrize("written", ["./no", "no/", ".//no", "{cwd}/no"])
def test_paths_are_compared_as_paths(written: str) -> None:
    path = written.format(cwd=os.getcwd())
    data = {**RECIPE["data"], "train": {"path": path}}
    assert shaping_differences(parse_recipe(RECIPE), parse_recipe({**RECIPE, "data": data})) == []
    other = {**RECIPE["data"], "train": {"path": f"{path}2"}}
    differing = shaping_differences(parse_recipe(RECIPE), parse_recipe({**RECIPE, "data": other}))
    assert [key for key, *_ in differing] == ["data.train.path"]
