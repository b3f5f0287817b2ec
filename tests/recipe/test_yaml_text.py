"""YAML of strangers: plain values of a bounded size, or one message."""

from __future__ import annotations

import pytest

from qvft.errors import RecipeError
from qvft.recipe.yaml_text import yaml_file_value, yaml_override_value

LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)
"""Nine lines that stand for a thousand million texts."""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "has over 100,000 values"),
        ("a: &a [*a]", "has over 50 levels"),
        ("[" * 5000, "nested too deeply|not valid YAML"),
        ("a: " + "x" * 1_000_001, "at most 1,000,000"),
        ("a: " + "1" * 5000, "not valid YAML: Exceeds the limit"),
        ("a: 2001-99-99", "not valid YAML"),
        ("a: 2001-01-01", "a is a date; put it in quotes"),
        ("a: {b: [!!binary eA==]}", r"a\.b\.0 is a bytes"),
        ("a: !!set {b, c}", "a is a .*set"),
        ("a: .nan", "a is nan, which is no number"),
        ("a: {b: .inf}", r"a\.b is inf, which is no number"),
        ("1: x", "the key '1' is no text"),
        ("? [a]\n: x", "is no text|not valid YAML"),
        ('a: "\\0"', "a has a zero character"),
        ('a: "\\ud800"', "half of a surrogate pair|not valid YAML"),
        ("a: 99999999999999999999", "more than 64 bits"),
        ("a: !!python/object/apply:os.system [x]", "not valid YAML"),
        ("a: 1\na: 2", "r.yaml:2: not valid YAML"),
    ],
)
def test_what_is_no_plain_value_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        yaml_file_value(text, where="r.yaml")
    assert str(caught.value).startswith("r.yaml")


def test_an_alias_used_a_few_times_is_as_good_as_its_value() -> None:
    assert yaml_file_value("a: &a {b: 1}\nc: *a", where="r") == {"a": {"b": 1}, "c": {"b": 1}}


@pytest.mark.parametrize("text", ["[", "2001-99-99", "'x", "1" * 5000])
def test_an_override_that_is_no_yaml_is_a_text(text: str) -> None:
    assert yaml_override_value(text, where="command line: a") == text


def test_an_override_is_held_to_the_same_rules() -> None:
    assert yaml_override_value("", where="x") is None
    with pytest.raises(RecipeError, match="command line: a: the value is nan"):
        yaml_override_value(".nan", where="command line: a")


@pytest.mark.parametrize(
    "text",
    [
        "a photo of ",
        "a photo of # 3",
        "#1",
        "5 # steps",
        "[1, 2] # two",
        "{a: 1}  # x",
        "a\n",
        "null # x",
    ],
)
def test_an_override_keeps_what_follows_its_last_word(text: str) -> None:
    assert yaml_override_value(text, where="command line: a") == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("'a # b '", "a # b "), ('"#1"', "#1"), ("a#b", "a#b"), ("[a#b, '# c']", ["a#b", "# c"]),
        ("{a: b}", {"a": "b"}), (" 5 ", 5), ("[1, 2] ", [1, 2]), ("null", None), ("  ", None),
    ],
)  # fmt: skip
def test_quotes_and_values_that_are_no_texts_are_read_as_yaml(text: str, value: object) -> None:
    assert yaml_override_value(text, where="command line: a") == value
