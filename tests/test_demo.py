"""`qvft demo` from the command line: what is refused before a model is loaded."""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path

import pytest

from qvft import extras
from qvft.demo import main


@pytest.fixture
def gradio_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: object())


def test_without_gradio_its_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "gradio" else find(name))
    assert main(["qvft/tiny-blip2"]) == 2
    assert "pip install 'qvft[demo]'" in capsys.readouterr().err


@pytest.mark.usefixtures("gradio_there")
def test_a_base_has_no_base_to_compare_with(tiny_folder: Path, tmp_path: Path, capsys) -> None:
    assert main([str(tiny_folder), "--compare", "--out", str(tmp_path / "out")]) == 2
    assert "--compare" in capsys.readouterr().err


@pytest.mark.usefixtures("gradio_there")
def test_a_port_in_use_is_refused(tiny_folder: Path, tmp_path: Path, capsys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main([str(tiny_folder), "--port", port, "--out", str(tmp_path / "out")]) == 2
    assert "--port" in capsys.readouterr().err
