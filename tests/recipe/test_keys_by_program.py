"""No key is ignored in silence: which program reads which, and what has no effect beside others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qvft.errors import RecipeError
from qvft.recipe.keys_by_program import (
    IGNORED,
    OF_A_MODEL,
    OF_A_RUN,
    covers,
    refuse_ignored,
)
from qvft.recipe.load import idle_keys, load_recipe, merge, parse_recipe
from qvft.recipe.recipe_lock import write_lock
from qvft.recipe.schema import Recipe
from qvft.recipe.unused_keys import named_in_file
from qvft.setup.run_recipe import run_recipe

READ: dict[str, tuple[str, ...]] = {
    "eval": (
        "name", "model",
        "data.train.format", "data.train.path", "data.train.split", "data.train.images",
        "data.train.allow_paths_outside_root", "data.train.questions", "data.train.annotations",
        "data.train.columns", "data.train.class_texts", "data.train.limit", "data.train.stream",
        "data.eval", "data.prompt", "data.text", "data.max_text_tokens", "data.on_bad_image",
        "data.max_image_pixels", "data.preprocessing", "data.num_workers", "data.features",
        "data.features_dtype", "data.features_limit_gb", "data.cache_images", "eval", "run",
    ),
    "merge": (
        "name", "model.id", "model.revision", "model.family", "model.decoder",
        "model.decoder_revision", "model.decoder_type", "model.text_branch", "model.query_tokens",
        "model.init", "model.dtype", "model.attn_implementation", "model.quantization",
        "data.train", "data.eval", "data.prompt", "data.text",
        "data.max_text_tokens", "data.on_bad_image", "data.max_image_pixels",
        "data.preprocessing", "data.num_workers", "data.cache_images",
        "eval.caption", "eval.answer", "run.seed", "run.threads",
    ),
}  # fmt: skip
READ["export"] = READ["merge"]
"""Keys that a program reads; a section stands for all of its keys. Evaluation counts the most
frequent answer, a baseline, in the training data."""

MINIMAL: dict[str, Any] = {"name": "x", "model": {"id": "m"}}
SCHEMA = Recipe.model_json_schema()


def keys(node: dict[str, Any] = SCHEMA, path: str = "") -> list[str]:
    """Every key path of a recipe that holds no section."""
    found = []
    for key, described in node["properties"].items():
        name = f"{path}.{key}" if path else key
        options = described.get("anyOf", [described])
        refs = [one["$ref"] for one in options if "$ref" in one]
        if refs:
            found += keys(SCHEMA["$defs"][refs[0].split("/")[-1]], name)
        else:
            found.append(name)
    return found


def unplaced(keys: list[str], program: str) -> list[str]:
    """Keys of which the tables do not say whether a program reads them, or say both."""
    tables = (READ[program], tuple(IGNORED[program]))
    return [
        key for key in keys if sum(any(covers(one, key) for one in table) for table in tables) != 1
    ]


@pytest.mark.parametrize("program", sorted(IGNORED))
def test_every_key_of_the_schema_has_a_place(program: str) -> None:
    """A new key is put into `READ` here or, with its reason, into `IGNORED`."""
    assert len(keys()) > 90
    assert unplaced(keys(), program) == []


def test_a_key_in_no_table_or_in_both_is_found() -> None:
    assert unplaced(["data.newcomer", "run.seed", "trainable.lora.r"], "eval") == ["data.newcomer"]


@pytest.mark.parametrize("table", [*READ.values(), *IGNORED.values(), OF_A_RUN, OF_A_MODEL])
def test_the_tables_name_keys_that_exist(table: Any) -> None:
    known = keys()
    for name in table:
        assert any(key == name or key.startswith(f"{name}.") for key in known), name


@pytest.mark.parametrize("program", ["eval", "merge", "export"])
@pytest.mark.parametrize(
    "override",
    ["trainable.lora.r=8", "train.epochs=3", "train={epochs: 3}", "data.augmentations_per_image=2"],
)
def test_what_only_training_reads_is_refused_elsewhere(program: str, override: str) -> None:
    with pytest.raises(RecipeError) as error:
        refuse_ignored([override], program)
    said = str(error.value)
    assert override.partition("=")[0] in said and f"qvft.{program} does not read it" in said


def test_what_is_switched_off_may_be_given_anywhere() -> None:
    refuse_ignored(["train.eval_steps=null", "train.load_best_model_at_end=false"], "merge")
    refuse_ignored(["model.quantization.load_in_4bit=false"], "eval", also=OF_A_MODEL)
    with pytest.raises(RecipeError):
        refuse_ignored(["train.max_grad_norm=0"], "merge")


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["trainable.decoder=frozen", "trainable.lora.r=8"], "no component of trainable is lora"),
        (["model.quantization.bnb_4bit_use_double_quant=false"], "load_in_4bit is false"),
        (["data.augment.crop=0.5"], "data.augmentations_per_image is 0"),
        (["data.augment={crop: 0.5}"], "data.augmentations_per_image is 0"),
        (["data.features=off", "data.features_dtype=int8"], "data.features is off"),
        (["trainable.frozen_decoder_fraction=0.5"], "trainable.decoder is not full"),
        (["train.spike.window=9"], "train.spike.policy is off"),
        (["train.learning_rate.vision=1e-4"], "trainable.vision is not full"),
        (["train.learning_rate.heads=1e-4"], "no objective has heads"),
        (["eval.class_prompts=['a {}']"], "eval.classes is empty"),
        (["eval.rerank=5"], "objectives.itm is 0"),
        (["data.train.path=a", "data.train.shuffle_buffer=5"], "data.train.stream is false"),
        (["model.decoder_revision=main"], "model.decoder is not set"),
        (["model.id=.", "model.revision=main"], "model.id is a folder"),
        (["phases=[{name: a, train: {epochs: 2}}]", "train.epochs=3"], "phases.0.train.epochs"),
    ],
)  # fmt: skip
def test_an_override_without_effect_is_refused(
    overrides: list[str], reason: str, tmp_path: Any
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("name: x\nmodel: {id: m}\n")
    with pytest.raises(RecipeError) as error:
        load_recipe(path, overrides)
    said = str(error.value)
    assert f"command line: {overrides[-1].partition('=')[0]}: would have no effect" in said
    assert reason in said


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.learning_rate=1e-4"],  # for all groups, frozen ones among them
        ["model.quantization.bnb_4bit_use_double_quant=true"],  # the default says nothing
        ["trainable.decoder=full", "trainable.frozen_decoder_fraction=0.5"],
        ["eval.caption.length_penalty=2"],  # beams may be asked for when the run is
        ["objectives.itc=1", "eval.classes=[cat, dog]", "eval.class_prompts=['a {}']"],
        ["phases=[{name: a, train: {epochs: 2}}, {name: b}]", "train.epochs=3"],
    ],
)
def test_an_override_with_an_effect_passes(overrides: list[str], tmp_path: Any) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("name: x\nmodel: {id: m}\n")
    load_recipe(path, overrides)


def test_what_stands_in_a_file_for_another_day_is_named() -> None:
    changes = {
        "trainable": {"decoder": "frozen", "lora": {"r": 8}},
        "train": {"learning_rate": {"adapters": 1e-3}},  # recipes list the rates of all groups
    }
    recipe = parse_recipe(merge(MINIMAL, changes))
    assert named_in_file(recipe, idle_keys(recipe)) == [
        "trainable.lora.r has no effect: no component of trainable is lora"
    ]


def test_a_key_of_one_phase_can_be_overridden(tmp_path: Any) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("name: x\nmodel: {id: m}\nphases: [{name: a}, {name: b, train: {epochs: 2}}]\n")
    recipe = load_recipe(path, ["phases.1.train.epochs=5", "phases.0.trainable.lora.r=4"])
    assert recipe.phases[1].train == {"epochs": 5}
    assert recipe.phases[0].trainable == {"lora": {"r": 4}}
    with pytest.raises(RecipeError, match="the recipe has 2 phases"):
        load_recipe(path, ["phases.2.train.epochs=5"])


@pytest.mark.parametrize("key", ["stream", "shuffle_buffer"])
def test_how_training_passes_over_data_is_no_key_of_evaluation_data(key: str) -> None:
    value = True if key == "stream" else 7
    data = {"eval": {"path": "e.jsonl", key: value}}
    with pytest.raises(RecipeError, match=rf"data\.eval\.{key}: evaluation lists its data"):
        parse_recipe(merge(MINIMAL, {"data": data}))


def test_what_repeats_what_holds_may_be_given_anywhere(tmp_path: Path) -> None:
    """A script may pass the same overrides to training, evaluation and merging."""
    run = tmp_path / "run"
    (run / "adapter").mkdir(parents=True)
    (run / "adapter" / "manifest.json").write_text("{}")
    write_lock(parse_recipe({**MINIMAL, "train": {"epochs": 3}, "run": {"dir": "old"}}), run)
    repeated = [
        "train.epochs=3",
        "trainable.decoder=lora",
        "data.augmentations_per_image=0",
        f"run.dir={tmp_path}/./run",
    ]
    for program in ("eval", "merge", "export"):
        assert run_recipe(run, repeated[:3], program=program).train.epochs == 3
    run_recipe(run, repeated, program="eval")
    for other in ("train.epochs=4", "run.dir=old", "name=y"):
        with pytest.raises(RecipeError, match="does not read it"):
            run_recipe(run, [*repeated, other], program="eval")
