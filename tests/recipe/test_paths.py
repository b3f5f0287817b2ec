"""`~` means the home folder in every key that is a path, and in every program's arguments."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

from qvft.errors import UserError
from qvft.files import expanded
from qvft.recipe.load import parse_recipe

ENTRIES = [
    "train", "eval", "merge", "export", "predict", "explain", "check", "score", "convert", "bench",
    "features", "pairs", "demo",
]  # fmt: skip
NO_PATHS = {
    "overrides", "--question", "--prompt", "--prompts", "--split", "--to", "--shard-size", "format",
    "--space", "--format", "--metric", "--metrics", "--host",
}  # fmt: skip
"""Arguments that are texts of another kind."""


def test_every_path_of_a_recipe_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    source = {"path": "~/d", "images": "~/i", "questions": "~/q", "annotations": "~/a"}
    recipe = parse_recipe(
        {
            "name": "x",
            "model": {"id": "~/m", "decoder": "~/c", "text_branch": "~/t"},
            "data": {"train": source, "eval": source},
            "objectives": {"itc": 1.0, "text_branch": "~/b"},
            "run": {"dir": "~/r"},
        }
    )
    assert recipe.data.train == recipe.data.eval
    assert recipe.data.train is not None
    found = [
        *(getattr(recipe.data.train, key) for key in source),
        recipe.model.id, recipe.model.decoder, recipe.model.text_branch,
        recipe.objectives.text_branch, recipe.run.dir,
    ]  # fmt: skip
    assert found == [f"/home/ann/{letter}" for letter in "diqamctbr"]


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_argument_that_is_a_path_is_expanded(entry: str) -> None:
    source = Path(importlib.import_module(f"qvft.{entry}").__file__ or "").read_text()
    calls = [
        (ast.unparse(node.args[0]).strip("'\""), {one.arg: one.value for one in node.keywords})
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("add_argument")
    ]
    assert calls
    for name, keywords in calls:
        kind = ast.unparse(keywords["type"]) if "type" in keywords else "text"
        is_flag = "choices" in keywords or "action" in keywords
        assert is_flag or name in NO_PATHS or kind != "text", f"{entry}: {name}"
        assert kind != "Path", f"{entry}: {name}"


def test_a_program_finds_what_lies_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe_file: Path, capsys
) -> None:
    from qvft.check import main

    (tmp_path / "r.yaml").write_text(recipe_file.read_text())
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["~/r.yaml", "--only", "recipe", "--json", "~/found.json"]) == 0
    assert (tmp_path / "found.json").is_file()


@pytest.mark.parametrize(
    ("path", "named"), [("", "empty"), ("$NO/run", "$NO"), ("${NO}/run", "${NO}")]
)
def test_an_unset_variable_is_no_path(path: str, named: str) -> None:
    with pytest.raises(UserError, match=re.escape(named)):
        expanded(path)


def test_a_folder_may_be_called_like_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("$own").mkdir()
    assert expanded("$own/run") == "$own/run"
