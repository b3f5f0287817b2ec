"""No secret gets into a recipe, and none of its messages repeats one."""

from __future__ import annotations

from typing import Any

import pytest

from qvft.errors import RecipeError
from qvft.recipe.load import parse_recipe

PLANTED = "s3cr3t-Value-0815"


def refusal(**content: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe({"name": "x", "model": {"id": "m"}, **content})
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "path", "kind"),
    [
        ({"train": {"arguments": {"hub_token": PLANTED}}}, "train.arguments.hub_token", "its name"),
        (
            {"data": {"train": {"path": f"https://me:{PLANTED}@host/x.jsonl"}}},
            "data.train.path",
            "a user and a password",
        ),
        (
            {"data": {"eval": {"path": f"https://h/x.jsonl?a=1&X-Amz-Signature={PLANTED}"}}},
            "data.eval.path",
            "a key in its query",
        ),
        ({"model": {"id": "hf_" + 30 * "a"}}, "model.id", "a Hugging Face token"),
        (
            {"phases": [{"name": "a", "train": {"arguments": {"hub_token": PLANTED}}}]},
            "phases.0.train.arguments.hub_token",
            "its name",
        ),
        ({"train": {"report_to": ["AKIA" + 16 * "A"]}}, "train.report_to.0", "an AWS key"),
    ],
)
def test_a_secret_is_refused_by_its_path_and_not_repeated(
    content: dict[str, Any], path: str, kind: str
) -> None:
    said = refusal(**content)
    assert f"recipe: {path}: holds" in said and kind in said
    assert PLANTED not in said and "aaaa" not in said and "AAAA" not in said


def test_the_value_of_a_secret_variable_is_refused_anywhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", PLANTED)
    said = refusal(train={"arguments": {"run_name": f"try {PLANTED}"}})
    assert "the value of the environment variable WANDB_API_KEY" in said
    assert PLANTED not in said


def test_a_token_of_texts_is_no_secret() -> None:
    said = refusal(reward={"funcs": {"cider": 1}, "stop_token": "maybe"})
    assert "secret" not in said and "reward.stop_token" in said


def test_values_of_other_variables_are_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_DATA", "/data/pictures")
    monkeypatch.setenv("SHORT_TOKEN", "a")
    recipe = parse_recipe(
        {
            "name": "x",
            "model": {"id": "a/b"},
            "data": {"train": {"path": "/data/pictures"}, "max_text_tokens": 64},
        }
    )
    assert recipe.data.train.path == "/data/pictures"
