"""Without an optional package the feature that wants it says what to install."""

from __future__ import annotations

import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from qvft import extras
from qvft.errors import MissingToolError
from qvft.evaluation.figure_formats import figure_format
from qvft.evaluation.modules import load
from qvft.explain import main as explain
from qvft.train import main as train


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """No optional package is found."""
    optional = {"matplotlib", "evaluate", "bitsandbytes"}

    def find(name: str) -> ModuleSpec | None:
        return None if name in optional else importlib.util.find_spec(name)

    monkeypatch.setattr(extras, "find_spec", find)


@pytest.mark.usefixtures("absent")
def test_metrics_of_evaluate_name_their_extra() -> None:
    with pytest.raises(MissingToolError, match=r"qvft\[evaluate\]"):
        load("captions")


@pytest.mark.usefixtures("absent")
def test_figures_name_their_extra(tiny_folder: Path, tmp_path: Path, capsys) -> None:
    with pytest.raises(MissingToolError, match=r"qvft\[plots\]"):
        figure_format(tmp_path / "f.png", option="--chart")
    assert explain([str(tiny_folder), "image.png", "--out", str(tmp_path / "f.png")]) == 2
    assert "qvft[plots]" in capsys.readouterr().err


@pytest.mark.usefixtures("absent")
def test_4_bits_name_their_package(recipe_file: Path, tmp_path: Path, capsys) -> None:
    given = [str(recipe_file), "model.quantization.load_in_4bit=true", f"run.dir={tmp_path}"]
    assert train(given) == 2
    assert "pip install 'bitsandbytes'" in capsys.readouterr().err
