"""The reward section: trl's names and defaults, and what is refused with its key."""

from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

from qvft.errors import RecipeError
from qvft.recipe.load import idle_keys, load_recipe, parse_recipe
from qvft.recipe.reward import Reward

OWN = {
    "funcs": "trl's constructor takes the functions, its config their weights",
    "advantage": "trl has a trainer per form",
    "stop_token": "trl has no CIDEr",
    "lm": "trl has no language loss beside the reward",
    "metric": "trl evaluates the reward",
}
OTHER_DEFAULTS = {
    "max_completion_length": "512 is longer than data.max_text_tokens and than captions",
    "loss_type": "null: what the advantage stands for; trl's RLOOTrainer has none",
    "scale_rewards": "null: what the advantage stands for; trl's RLOOTrainer has none",
}


def test_names_and_defaults_are_those_of_trls_configs() -> None:
    trl = pytest.importorskip("trl", reason="trl is the source of names and defaults")
    defaults: dict[str, Any] = {}
    for config in (trl.GRPOConfig, trl.RLOOConfig):  # RLOO's hold where both have one
        defaults |= {one.name: one.default for one in fields(config) if one.default is not MISSING}
    own = Reward().model_dump()
    assert own.keys() - OWN.keys() <= defaults.keys()
    differing = {name for name in own.keys() - OWN.keys() if own[name] != defaults[name]}
    assert differing == OTHER_DEFAULTS.keys()


@pytest.mark.parametrize(
    "setting",
    ["top_p: 0.9", "top_k: 50", "min_p: 0.1", "repetition_penalty: 1.2", "num_beams: 3",
     "min_new_tokens: 2", "generation_kwargs: {no_repeat_ngram_size: 3}"],
)  # fmt: skip
def test_sampling_that_biases_the_gradient_is_refused(recipe_file: Path, setting: str) -> None:
    key = setting.partition(":")[0]
    with pytest.raises(RecipeError, match=rf"reward.*{key}"):
        load_recipe(recipe_file, [f"reward={{{setting}}}"])


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("{funcs: {ciderr: 1.0}}", 'did you mean "cider"'),
        ("{funcs: {cider: 0}}", "other than 0"),
        ("{advantage: grpo, loss_type: rloo}", "does not fit"),
        ("{advantage: rloo, scale_rewards: group}", "no effect"),
        ("{lm: 0.5, temperature: 0.7}", "temperature"),
        ("{metric: cidr}", 'did you mean "cider"'),
    ],
)
def test_contradictions_are_refused(recipe_file: Path, section: str, said: str) -> None:
    with pytest.raises(RecipeError, match="reward") as caught:
        load_recipe(recipe_file, [f"reward={section}"])
    assert said in str(caught.value)


PHASE: dict[str, Any] = {"name": "reward", "objective": "reward"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reward": {}}, "reward.funcs is empty"),
        ({"train": {"batch_tokens": 512}}, "batch_tokens"),
        ({"train": {"torch_compile": True}}, "torch_compile"),
        ({"model": {"id": "m", "attn_implementation": "flex"}}, "model.attn_implementation"),
        ({"train": {"spike": {"policy": "stop"}}}, "spike.policy"),
        ({"train": {"save_steps": 3}, "reward": {"num_iterations": 2}}, "save_steps"),
        ({"data": {"train": {"path": "a", "format": "tar", "stream": True}},
          "train": {"max_steps": 2}}, "data.train.stream"),
        ({"train": {"gradient_checkpointing": True}, "trainable": {"decoder_dropout": 0.1}},
         "decoder_dropout"),
    ],
)  # fmt: skip
def test_what_does_not_fit_a_reward_phase_is_refused(changes: dict[str, Any], said: str) -> None:
    plain: dict[str, Any] = {
        "name": "a",
        "model": {"id": "qvft/tiny-blip2"},
        "phases": [PHASE],
        "reward": {"funcs": {"cider": 1.0}},
    }
    parse_recipe(plain)
    reward = changes.get("reward")
    if reward:
        changes = {**changes, "reward": {"funcs": {"cider": 1.0}, **reward}}
    with pytest.raises(RecipeError, match=said):
        parse_recipe({**plain, **changes})


def test_a_reward_section_without_such_a_phase_is_not_checked(recipe_file: Path) -> None:
    load_recipe(recipe_file, ["train.batch_tokens=512"])


def test_keys_of_clipping_and_of_ngrams_have_no_effect_without_them() -> None:
    plain = {"name": "a", "model": {"id": "m"}, "phases": [PHASE]}
    idle = idle_keys(parse_recipe({**plain, "reward": {"funcs": {"exact_match": 1.0}}}))
    assert {"reward.epsilon", "reward.epsilon_high", "reward.stop_token"} <= idle.keys()
    used = {"funcs": {"bleu4": 1.0}, "num_iterations": 2}
    assert not [key for key in idle_keys(parse_recipe({**plain, "reward": used})) if "rew" in key]
