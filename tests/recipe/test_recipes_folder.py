"""Every recipe that ships is read, and opens as a recipe should."""

import re
from pathlib import Path

import pytest

from qvft.data.formats import FORMATS
from qvft.recipe.load import load_recipe

FOLDER = Path(__file__).resolve().parents[2] / "recipes"
RECIPES = sorted(FOLDER.glob("*.yaml"))
EXPECTED = {
    "coco_align",
    "coco_caption",
    "coco_caption_scst",
    "custom_jsonl",
    "medical_vqa",
    "medical_vqa_dpo",
    "medical_vqa_lora",
    "medical_vqa_question",
    "new_decoder",
    "product_catalog",
    "quickstart_digits",
    "qvision_coco",
    "qvision_coco_lora",
    "vqa_v2",
    "vqa_v2_question",
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
    assert f"# Launch: qvft train recipes/{path.name}" in text


@each_recipe
def test_overrides_named_in_its_comments_are_valid(path: Path) -> None:
    named = re.findall(
        r"(?<![\w.])((?:data|train|trainable|model|eval|run)\.[\w.]+=[\w./-]+)", header(path)
    )
    whole = [override.rstrip(".") for override in named if "..." not in override]
    load_recipe(path, whole)


def test_the_folder_lists_every_recipe() -> None:
    text = (FOLDER / "README.md").read_text()
    assert {name for name in EXPECTED if f"`{name}`" in text} == EXPECTED


def test_the_overrides_of_other_checkpoints_name_what_is_counted() -> None:
    from qvft.models.reference_configs import known_configs

    text = (FOLDER / "README.md").read_text().partition("## Other checkpoints")[2]
    lines = [re.findall(r"`([\w.]+=[^`]+)`", line) for line in text.splitlines() if "|" in line]
    named = [load_recipe(FOLDER / "medical_vqa.yaml", line) for line in lines if line]
    assert len({recipe.model.id for recipe in named} & known_configs().keys()) == 8


def test_custom_jsonl_wants_nothing_but_a_model_and_two_paths() -> None:
    recipe = load_recipe(
        FOLDER / "custom_jsonl.yaml",
        ["model.id=m", "data.train.path=a.jsonl", "data.eval.path=b.jsonl"],
    )
    assert recipe.data.train is not None
    assert recipe.data.eval is not None
    assert (recipe.data.train.texts, recipe.data.eval.texts) == ("all", "all")


@pytest.mark.parametrize("name", ["medical_vqa", "vqa_v2"])
def test_the_question_aware_twin_differs_in_name_and_text_branch_alone(name: str) -> None:
    """So that a comparison of the two runs says what the question in the Q-Former is worth."""
    plain = load_recipe(FOLDER / f"{name}.yaml").model_dump()
    aware = load_recipe(FOLDER / f"{name}_question.yaml").model_dump()
    expected = {
        "name": f"{name}_question",
        "model": {
            **plain["model"],
            "family": "blip2_question",
            "text_branch": "Salesforce/blip2-itm-vit-g",
        },
    }
    assert aware == {**plain, **expected}


def test_preference_tuning_starts_from_the_run_that_it_names() -> None:
    """Model, prompt and LoRA layers are the start's, and learning rates a tenth of its."""
    start, tuned = (load_recipe(FOLDER / f"medical_vqa{end}.yaml") for end in ("", "_dpo"))
    assert tuned.train.from_ == start.run_dir
    assert (tuned.model, tuned.trainable) == (start.model, start.trainable)
    assert tuned.data.prompt == start.data.prompt and tuned.data.eval == start.data.eval
    rates = tuned.train.learning_rate.model_dump()
    for part in ("qformer", "query_tokens", "language_projection", "adapters"):
        assert rates[part] == pytest.approx(getattr(start.train.learning_rate, part) / 10)


def test_reward_tuning_starts_from_the_run_that_it_names() -> None:
    """Model, prompt and LoRA layers are the start's, and learning rates a tenth of its."""
    start, tuned = (load_recipe(FOLDER / f"coco_caption{end}.yaml") for end in ("", "_scst"))
    assert tuned.train.from_ == start.run_dir
    assert (tuned.model, tuned.trainable, tuned.eval) == (start.model, start.trainable, start.eval)
    assert (tuned.data.prompt, tuned.data.text) == (start.data.prompt, start.data.text)
    rates = tuned.train.learning_rate.model_dump()
    for part in ("qformer", "query_tokens", "language_projection", "adapters"):
        assert rates[part] == pytest.approx(getattr(start.train.learning_rate, part) / 10)


@pytest.mark.parametrize(
    ("name", "branch", "word_rows"),
    [
        ("medical_vqa_question", "Salesforce/blip2-itm-vit-g", 30_524),
        ("vqa_v2_question", "bert-base-uncased", 30_523),
    ],
)
def test_a_question_aware_recipe_counts_its_text_branch(
    name: str, branch: str, word_rows: int
) -> None:
    """What docs/question_aware.md adds up, for a Q-Former of 768 x 12 with an FFN of 3,072."""
    from qvft.checking.check_recipe import check_model

    width, inner, layers, positions = 768, 3072, 12, 512
    ffn = 2 * width * inner + inner + width + 2 * width
    added = word_rows * width + positions * width + layers * ffn
    counts = {}
    for recipe in (name.removesuffix("_question"), name):
        overrides = [f"model.text_branch={branch}"] if recipe == name else []
        phase = check_model(load_recipe(FOLDER / f"{recipe}.yaml", overrides)).phases[0]
        counts[recipe] = {row.component: (row.total, row.trainable) for row in phase.components}
    plain, aware = counts.values()
    total = plain["qformer"][0] + added
    assert aware == {**plain, "qformer": (total, total)}
