"""Every recipe that ships is read, and opens as a recipe should."""

import re
from pathlib import Path

import pytest

from qvft.data.formats import FORMATS
from qvft.recipe.load import load_recipe

FOLDER = Path(__file__).resolve().parents[2] / "recipes"
RECIPES = sorted(FOLDER.glob("*.yaml"))
EXPECTED = {
    "coco_caption",
    "custom_jsonl",
    "medical_vqa",
    "medical_vqa_lora",
    "product_catalog",
    "quickstart_digits",
    "tiny_pretrain",
    "vqa_v2",
}
each_recipe = pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)


def header(path: Path) -> str:
    lines = path.read_text().splitlines()
    end = next(index for index, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(lines[:end])


def test_all_recipes_are_found() -> None:
    assert {path.stem for path in RECIPES} == EXPECTED


@each_recipe
def test_it_is_read_and_named_like_its_file(path: Path) -> None:
    assert load_recipe(path).name == path.stem


@each_recipe
def test_its_formats_exist(path: Path) -> None:
    data = load_recipe(path).data
    assert data.train is not None
    assert data.train.format in FORMATS
    assert data.eval is None or data.eval.format in FORMATS


@each_recipe
def test_it_opens_with_purpose_needs_launch_line_and_override(path: Path) -> None:
    text = header(path)
    assert text.startswith("# yaml-language-server: $schema=recipe.schema.json\n")
    for part in ("# Purpose: ", "# Needs: ", "# Override, for example: ", "# Hyper-parameters: "):
        assert part in text
    assert f"# Launch: accelerate launch -m qvft.train recipes/{path.name}" in text


@each_recipe
def test_overrides_named_in_its_comments_are_valid(path: Path) -> None:
    named = re.findall(
        r"(?<![\w.])((?:data|train|tune|model|eval|run)\.[\w.]+=[\w./-]+)", header(path)
    )
    whole = [override.rstrip(".") for override in named if "..." not in override]
    load_recipe(path, whole)


def test_the_folder_lists_every_recipe() -> None:
    text = (FOLDER / "README.md").read_text()
    assert {name for name in EXPECTED if f"`{name}`" in text} == EXPECTED


def test_custom_jsonl_wants_nothing_but_a_model_and_two_paths() -> None:
    recipe = load_recipe(
        FOLDER / "custom_jsonl.yaml",
        ["model.id=m", "data.train.path=a.jsonl", "data.eval.path=b.jsonl"],
    )
    assert recipe.data.train is not None
    assert recipe.data.eval is not None
    assert (recipe.data.train.texts, recipe.data.eval.texts) == ("all", "all")
