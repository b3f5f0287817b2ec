"""Values that could only fail later are refused when the recipe is read, with the key's name.

The tables are held against the whole schema: a new key must refuse what its kind must refuse, or
stand here with the reason why it need not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from qvft.errors import RecipeError
from qvft.recipe.load import merge, parse_recipe
from qvft.recipe.overrides import apply_overrides
from qvft.recipe.schema import Recipe

HUGE = 10**18

MINIMAL: dict[str, Any] = {
    "name": "x",
    "model": {"id": "m"},
    "data": {"train": {"path": "t.jsonl"}, "eval": {"path": "e.jsonl"}},
}

# Numbers that may be as large as one likes, since the data or the machine bounds them.
NO_MOST = {
    "data.train.limit", "data.eval.limit",  # of the images there are
    "data.max_image_pixels",  # who raises it wants no bound
    "train.max_grad_norm",  # a norm that is never reached clips nothing
    "train.spike.deviations", "train.spike.factor",  # nothing is a spike then
}  # fmt: skip
# Texts that may be empty: nothing stands before a caption then.
MAY_BE_EMPTY = {
    "data.prompt.caption", "data.train.prompt.caption", "data.eval.prompt.caption",
    "eval.retention.prompt.caption",
}  # fmt: skip
# Below zero, one number of these says something of its own.
NEGATIVE = {
    "train.max_steps": -2,
    "eval.caption.length_penalty": -21,
    "eval.answer.length_penalty": -21,
}


def leaves(schema: dict[str, Any], node: dict[str, Any], path: str) -> Iterator[tuple[str, dict]]:
    """(key path, JSON schema) of every key that holds no section."""
    for key, described in node["properties"].items():
        name = f"{path}.{key}" if path else key
        options = described.get("anyOf", [described])
        refs = [one["$ref"] for one in options if "$ref" in one]
        if refs:
            yield from leaves(schema, schema["$defs"][refs[0].split("/")[-1]], name)
        else:
            yield name, described


SCHEMA = Recipe.model_json_schema()
LEAVES = dict(leaves(SCHEMA, SCHEMA, ""))


def of_type(*kinds: str) -> list[str]:
    return [
        name
        for name, described in LEAVES.items()
        if any(one.get("type") in kinds for one in described.get("anyOf", [described]))
        and not any("enum" in one for one in described.get("anyOf", [described]))
    ]


def refused(key: str, value: Any) -> str:
    content = merge(MINIMAL, {})
    *parents, last = key.split(".")
    node = content
    for parent in parents:
        node[parent] = dict(node.get(parent) or {})
        node = node[parent]
    node[last] = value
    with pytest.raises(RecipeError) as error:
        parse_recipe(content)
    return str(error.value)


def test_the_schema_was_walked() -> None:
    assert len(LEAVES) > 90  # there are about a hundred; an empty walk must not pass
    assert {"train.betas", "run.seed", "data.eval.name", "eval.answer.num_beams"} <= set(LEAVES)


@pytest.mark.parametrize("key", of_type("integer", "number"))
def test_a_number_below_zero_is_refused_with_its_key(key: str) -> None:
    assert key in refused(key, NEGATIVE.get(key, -1))


@pytest.mark.parametrize("key", sorted(set(of_type("integer", "number")) - NO_MOST))
def test_a_number_beyond_all_use_is_refused_with_its_key(key: str) -> None:
    assert key in refused(key, HUGE)


@pytest.mark.parametrize("key", of_type("number"))
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_refused_by_overrides_and_files(key: str, value: float) -> None:
    text = {"nan": ".nan", "inf": ".inf", "-inf": "-.inf"}[str(value)]
    with pytest.raises(RecipeError, match=r"is no number"):
        apply_overrides(merge(MINIMAL, {}), [f"{key}={text}"])


@pytest.mark.parametrize("key", sorted(set(of_type("string")) - MAY_BE_EMPTY))
def test_an_empty_text_is_refused_with_its_key(key: str) -> None:
    assert key in refused(key, "")


@pytest.mark.parametrize("key", of_type("array"))
def test_a_list_refuses_an_empty_text_or_a_number_that_does_not_fit(key: str) -> None:
    if key == "phases":
        assert "phases" in refused(key, [{}])
        return
    assert key in refused(key, [-1.0, 2.0] if key == "train.betas" else [""])


@pytest.mark.parametrize("key", of_type("boolean"))
def test_a_word_is_no_boolean(key: str) -> None:
    assert key in refused(key, "yes")


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train.betas=[1.5, 2]", "train.betas.0=1.5"),
        ("train.betas=[0.9]", "train.betas"),
        ("train.betas=[0.9, 1.0]", "train.betas.1=1.0"),
        ("run.seed=4294967296", "run.seed=4294967296"),
        ("data.augment.seed=4294967296", "data.augment.seed"),
        ("train.max_steps=0", "train.max_steps: 0 would train nothing"),
        ("run.threads=4000", "run.threads=4000"),
        ("data.num_workers=4000", "data.num_workers=4000"),
        ("train.warmup_steps=2.5", "train.warmup_steps: 2.5 steps; expected a whole number"),
        ("train.learning_rate.qformer=5", "train.learning_rate.qformer=5"),
        ("train.learning_rate=5", "train.learning_rate.vision=5"),
        ("train.report_to=wandb", "expected a list, e.g. train.report_to=[wandb]"),
        ("trainable.lora.target_modules=all_linear", "expected all-linear, or a list of names"),
        ("trainable.lora.target_modules=q_proj", "e.g. trainable.lora.target_modules=[q_proj]"),
        ("data.prompt.question={question}", """write it in quotes: '"{question}"'"""),
        ("data.prompt.caption=shown: a", """write it in quotes: '"shown: a"'"""),
        ("eval.class_prompts=[a {}]", "quote texts"),
        ("data.train={path: a.jsonl", "close each bracket"),
        ("train.learning_rate=true", "train.learning_rate=True: expected one number, or its keys"),
        ("trainable.lora=8", "trainable.lora=8: expected its keys, e.g. trainable.lora.r="),
        ("trainable.lora.r=100000", "trainable.lora.r"),
        ("trainable.lora.lora_dropout=1", "trainable.lora.lora_dropout"),
        ("trainable.frozen_decoder_fraction=1", "trainable.frozen_decoder_fraction"),
        ("data.augment.crop=1.5", "data.augment.crop"),
        ("data.augment.crop=0", "data.augment.crop"),
        ("eval.class_prompts=[a photo]", "must contain {} once"),
        ("eval.class_prompts=['{} {}']", "must contain {} once"),
        ("model.id=''", "model.id"),
        ("run.dir=''", "run.dir"),
        ("name=..", "name: '..'"),
        (f"name={'n' * 300}", "name="),
        ("data.eval.name=../../elsewhere", "data.eval.name: '../../elsewhere' holds a /"),
        ("data.eval.name=..", "data.eval.name: '..'"),
        (f"data.eval.name={'n' * 300}", "has 300 characters"),
        (f"data.eval.name={chr(0x597d) * 90}", "has 90 characters"),  # 270 bytes
        ("train.arguments=3", "train.arguments=3: expected a mapping"),
        ("train.epochs.more=3", "train.epochs={'more': 3}"),
    ],
)  # fmt: skip
def test_the_message_names_key_and_value(override: str, says: str) -> None:
    content = merge(MINIMAL, {})
    apply_overrides(content, [override])
    with pytest.raises(RecipeError) as error:
        parse_recipe(content)
    assert says in str(error.value)


FROZEN = dict.fromkeys(
    ("vision", "qformer", "query_tokens", "language_projection", "decoder"), "frozen"
)


def test_a_recipe_that_trains_nothing_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"trainable: vision, .* are all frozen"):
        parse_recipe(merge(MINIMAL, {"trainable": FROZEN}))


def test_a_phase_that_trains_nothing_is_refused_though_others_do() -> None:
    phases = [{"name": "a"}, {"name": "b", "trainable": FROZEN}]
    with pytest.raises(RecipeError, match=r"phases\.1\.trainable: vision, .* are all frozen"):
        parse_recipe(merge(MINIMAL, {"phases": phases}))


def test_heads_alone_may_be_trained() -> None:
    changes = {"trainable": FROZEN, "objectives": {"itc": 1.0}}
    assert parse_recipe(merge(MINIMAL, changes)).trainable.qformer == "frozen"


def test_a_phase_has_an_objective() -> None:
    phase = {"name": "a", "objective": "language"}  # as in locks of 0.1.0
    recipe = parse_recipe(merge(MINIMAL, {"phases": [phase]}))
    assert recipe == parse_recipe(merge(MINIMAL, {"phases": [{"name": "a"}]}))
    with pytest.raises(RecipeError, match=r"phases\.0\.objective=.*'preference'"):
        parse_recipe(merge(MINIMAL, {"phases": [{**phase, "objective": "scene_heads"}]}))


def test_one_learning_rate_is_for_all_groups_of_weights() -> None:
    content = merge(MINIMAL, {})
    apply_overrides(content, ["train.learning_rate=1e-4"])
    assert set(parse_recipe(content).train.learning_rate.model_dump().values()) == {1e-4}


def test_a_group_of_its_own_lies_over_one_rate_for_all() -> None:
    content = merge(MINIMAL, {"train": {"learning_rate": 1e-4}})
    apply_overrides(content, ["train.learning_rate.qformer=1e-5"])
    rates = parse_recipe(content).train.learning_rate
    assert (rates.qformer, rates.adapters, rates.vision) == (1e-5, 1e-4, 1e-4)


def test_a_phase_may_have_one_rate_for_all() -> None:
    from qvft.recipe.load import resolve_phase

    recipe = parse_recipe(
        merge(MINIMAL, {"phases": [{"name": "a", "train": {"learning_rate": 1e-3}}]})
    )
    assert set(resolve_phase(recipe, recipe.phases[0])[1].learning_rate.model_dump().values()) == {
        1e-3
    }


def test_a_key_below_a_plain_value_is_refused_and_not_laid_over_it() -> None:
    with pytest.raises(RecipeError, match=r"model\.quantization is 'nf4', which has no keys"):
        apply_overrides(
            merge(MINIMAL, {"model": {"quantization": "nf4"}}),
            ["model.quantization.bnb_4bit_use_double_quant=true"],
        )


@pytest.mark.parametrize("written", ["data.prompt.caption=", 'data.prompt.caption=""'])
def test_a_caption_prompt_may_be_empty(written: str) -> None:
    content = merge(MINIMAL, {"data": {"prompt": {"caption": "a photo of"}}})
    apply_overrides(content, [written])
    assert parse_recipe(content).data.prompt.caption == ""


@pytest.mark.parametrize("written", ["train.from=", "train.from= ", "data.eval.path="])
def test_an_override_without_a_value_is_refused_by_its_key(written: str) -> None:
    """As a shell leaves `train.from=$RUN` where RUN is not set; null would leave the start out."""
    key = written.partition("=")[0]
    with pytest.raises(RecipeError, match=f"{key}: has no value.*{key}=null"):
        apply_overrides(merge(MINIMAL, {}), [written])
    apply_overrides(merge(MINIMAL, {}), [f"{key}=null"])
