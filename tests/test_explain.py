"""`qvft.explain` from the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from qvft.explain import main
from qvft.predict import main as predict


@pytest.fixture(scope="module")
def question_run(tmp_path_factory: pytest.TempPathFactory, make_run: Callable[..., Path]) -> Path:
    """A run whose Q-Former reads the question."""
    folder = tmp_path_factory.mktemp("runs") / "asked"
    return make_run(folder, model={"text_branch": "fresh"})


@pytest.mark.parametrize("question", [None, "Which $colour$ is it?"])
def test_a_figure_is_written(
    drawn_run: Path, shapes: Path, tmp_path: Path, capsys, question: str | None
) -> None:
    out = tmp_path / "new" / "figure.png"
    asked = [] if question is None else ["--question", question]
    assert main([str(drawn_run), str(shapes / "test0.png"), *asked, "--out", str(out)]) == 0
    with Image.open(out) as figure:
        assert figure.format == "PNG"
        assert figure.width > 1000 and figure.height > 800
        assert len(figure.convert("RGB").getcolors(1 << 24)) > 200  # maps, not an empty page
    assert capsys.readouterr().out.splitlines()[-1] == f"written to {out}"


def test_the_words_are_those_that_prediction_gives(
    drawn_run: Path, shapes: Path, tmp_path: Path, capsys
) -> None:
    from qvft import load_model

    said = load_model(drawn_run).caption(shapes / "test0.png")
    out = tmp_path / "figure.svg"
    assert main([str(drawn_run), str(shapes / "test0.png"), "--out", str(out)]) == 0
    assert capsys.readouterr().out.startswith(said)
    assert "<svg" in out.read_text()


def test_a_question_aware_model_is_explained(
    question_run: Path, shapes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "figure.png"
    given = [str(question_run), str(shapes / "test0.png"), "--question", "Is it red?"]
    assert main([*given, "--out", str(out)]) == 0
    assert out.stat().st_size > 0


def test_a_question_that_is_cut_is_counted_by_explaining_and_predicting(
    question_run: Path, shapes: Path, tmp_path: Path, capsys
) -> None:
    image, asked = str(shapes / "test0.png"), ["--question", "Is it " + "very " * 300 + "red?"]
    assert main([str(question_run), image, *asked, "--out", str(tmp_path / "figure.png")]) == 0
    explained = capsys.readouterr().err
    assert predict([str(question_run), image, *asked, "--workers", "0"]) == 0
    for said in (explained, capsys.readouterr().err):
        assert "of 1 texts data.max_text_tokens (128) cuts 1 prompts" in said
        assert "it does not see the beginning of 1 of 1 prompts" in said


@pytest.mark.parametrize(
    "given",
    [
        ["MODEL", "IMAGE", "--out", "figure.txt"],
        ["MODEL", "absent.png", "--out", "figure.png"],
        ["absent", "IMAGE", "--out", "figure.png"],
        ["MODEL", "FOLDER", "--out", "figure.png"],
    ],
    ids=" ".join,
)
def test_wrong_input_is_told(
    given: list[str], drawn_run: Path, shapes: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"MODEL": drawn_run, "IMAGE": shapes / "test0.png", "FOLDER": shapes}
    assert main([str(places.get(item, item)) for item in given]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("qvft: ") == 1 and "Traceback" not in captured.err
    assert captured.out == "" and not (tmp_path / "figure.png").exists()


def test_a_broken_image_is_told(drawn_run: Path, tmp_path: Path, capsys) -> None:
    image = tmp_path / "broken.png"
    image.write_bytes(b"no image")
    assert main([str(drawn_run), str(image), "--out", str(tmp_path / "figure.png")]) == 2
    assert str(image) in capsys.readouterr().err


def test_a_model_that_says_nothing_fails(
    drawn_run: Path, shapes: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr("qvft.evaluation.explanation.explain.generated_texts", lambda *given: [""])
    out = tmp_path / "figure.png"
    assert main([str(drawn_run), str(shapes / "test0.png"), "--out", str(out)]) == 1
    assert "no word to explain" in capsys.readouterr().err
