"""Query tokens that became one are named by training, evaluation and the check of a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from qvft.check import main as check
from qvft.eval import main as evaluate
from qvft.setup.data import read_texts
from qvft.setup.model import Loaded
from qvft.setup.query_similarity import query_similarity
from qvft.setup.resolve_model import load_resolved, resolve_model
from qvft.train import main as train
from tools.tiny_blip2.geometry import init_tiny


def make_one(model: torch.nn.Module) -> None:
    """Gives every query token the weights of the first."""
    with torch.no_grad():
        model.query_tokens.copy_(model.query_tokens[:, :1].expand_as(model.query_tokens))


@pytest.fixture
def loaded(drawn_run: Path) -> Loaded:
    return load_resolved(resolve_model(str(drawn_run)))


def test_equal_query_tokens_have_a_cosine_of_1(loaded: Loaded, drawn_run: Path) -> None:
    samples = read_texts(resolve_model(str(drawn_run)).recipe, "eval")
    before = query_similarity(loaded, samples)
    assert before is not None and before < 0.99
    make_one(loaded.model)
    # Rounding: equal rows of float32 give a cosine within a few ulp of 1.
    assert query_similarity(loaded, samples) == pytest.approx(1.0, abs=1e-5)


def test_one_query_token_is_like_no_other(make_run: Callable[..., Path], tmp_path: Path) -> None:
    recipe = resolve_model(str(make_run(tmp_path / "run", model={"query_tokens": 1}))).recipe
    loaded = load_resolved(resolve_model(str(tmp_path / "run")))
    assert query_similarity(loaded, read_texts(recipe, "eval")) is None


def test_the_model_is_left_as_it_was(loaded: Loaded, drawn_run: Path) -> None:
    samples = read_texts(resolve_model(str(drawn_run)).recipe, "eval")
    loaded.model.train()
    query_similarity(loaded, samples)
    assert loaded.model.training


@pytest.fixture(scope="module")
def collapsed(tiny_run: Path, recipe_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base whose query tokens are one."""
    from qvft.recipe.load import load_recipe

    folder = tmp_path_factory.mktemp("collapsed") / "base"
    shutil.copytree(load_recipe(recipe_file).model.id, folder)
    model = init_tiny(0)
    make_one(model)
    model.save_pretrained(folder)
    return folder


def test_training_evaluation_and_check_say_so(
    collapsed: Path, recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = tmp_path / "run"
    given = [
        f"model.id={collapsed}",
        f"run.dir={run}",
        "train.max_steps=1",
        "train.learning_rate=1e-9",
    ]
    assert train([str(recipe_file), *given]) == 0
    assert "query tokens have collapsed onto one another" in capsys.readouterr().err
    assert evaluate([str(run), "eval.blind=false"]) == 0
    assert "query tokens have collapsed onto one another" in capsys.readouterr().out
    report = json.loads((run / "eval" / "shapes-test" / "report.json").read_text())
    assert report["query_similarity"] > 0.999
    assert any("collapsed" in sentence for sentence in report["verdict"])
    page = (run / "eval" / "shapes-test" / "report.html").read_text(encoding="utf-8")
    assert "query tokens have collapsed onto one another" in page
    assert check([str(run)]) == 0
    assert "query tokens have collapsed onto one another" in capsys.readouterr().out


def test_a_healthy_run_is_not_warned(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "report"
    assert evaluate([str(tiny_run), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "collapsed" not in said
    assert "The model uses the image for questions" not in said  # six steps teach nothing
    report = json.loads((out / "report.json").read_text())
    assert report["query_similarity"] < 0.99
    assert report["verdict"][0] in said
