"""What is cut, left out or worth little in the data is said by each program that uses it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from qvft.check import main as check
from qvft.eval import main as evaluate
from qvft.predict import main as predict
from qvft.train import main as train

LONG = "Is it " + "very " * 20 + "red?"


def write(folder: Path, *rows: dict[str, Any]) -> Path:
    """A JSONL file of rows, with an image of its own for each."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(rows):
        row.setdefault("image", f"{number}.png")
        Image.new("RGB", (8, 8), (9 * number, 0, 0)).save(folder / row["image"])
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def degenerate(tmp_path: Path) -> Path:
    """Three images with one answer, a long question, and a caption that begins with the prompt."""
    rows = [{"question": f"Is it {n}?", "answer": "yes"} for n in range(2)]
    return write(tmp_path / "data", *rows, {"question": LONG, "answer": "yes"})


def command(recipe_file: Path, data: Path, tmp_path: Path) -> list[str]:
    return [
        str(recipe_file),
        f"run.dir={tmp_path / 'run'}",
        f"data.train.path={data}",
        "data.max_text_tokens=16",
        "train.max_steps=1",
    ]


def test_training_says_what_is_cut_and_what_is_worth_little(
    recipe_file: Path, degenerate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(command(recipe_file, degenerate, tmp_path)) == 0
    err = capsys.readouterr().err
    assert "rows: of 3 texts data.max_text_tokens (16) cuts 1 prompts" in err
    assert "rows: all 3 questions have the same text as their targets" in err
    assert "rows: 3 images: what is learnt from fewer than 10" in err
    assert "train: 1 optimizer step in all" in err


def test_the_check_says_it_too(recipe_file: Path, degenerate: Path, tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    assert check([*command(recipe_file, degenerate, tmp_path), "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    said = "\n".join(found["warnings"])
    assert "all 3 questions have the same text" in said
    assert "3 images: what is learnt from fewer than 10" in said
    assert "train: 1 optimizer step in all" in said
    assert (found["train"]["cut_prompts"], found["train"]["cut_targets"]) == (1, 0)


def test_captions_that_begin_with_the_prompt_are_said_before_they_are_trained_on(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "data", *({"caption": f"a photo of {n}"} for n in range(2)))
    given = [*command(recipe_file, data, tmp_path), "data.prompt.caption=a photo of"]
    message = "rows: 2 of 2 captions begin with 'a photo of', which data.prompt.caption writes too"
    assert train(given) == 0
    assert message in capsys.readouterr().err
    assert check([*given, "--only", "data"]) == 0
    assert message in capsys.readouterr().out


def test_data_without_texts_is_refused_before_the_model_is_loaded(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    data = write(tmp_path / "data", {}, {})
    monkeypatch.setattr("qvft.training.prepare_training.base_model", None)
    assert train(command(recipe_file, data, tmp_path)) == 2
    assert "data.train: holds no text to train on" in capsys.readouterr().err


def test_an_evaluation_says_it_on_the_screen_and_in_its_report(
    tiny_run: Path, degenerate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"
    given = [f"data.eval.path={degenerate}", "data.eval.name=odd", "data.max_text_tokens=16"]
    assert evaluate([str(tiny_run), *given, "eval.blind=false", "--out", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    assert (report["counts"]["prompts_cut"], report["counts"]["targets_cut"]) == (1, 0)
    screen, page = capsys.readouterr().out, (out / "report.html").read_text()
    for message in (
        "odd: of 3 texts data.max_text_tokens (16) cuts 1 prompts",
        "odd: all 3 questions have the same text as their references",
        "odd: 3 images: what is measured on fewer than 10",
    ):
        assert any(message in warning for warning in report["warnings"])
        assert message in screen
        assert message in page


def test_an_evaluation_says_that_all_predictions_are_the_same(
    tiny_run: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import qvft.inference.predict as predicting

    def same(model: Any, collator: Any, batch: Any, settings: Any) -> list[tuple[str, ...]]:
        return [("red",)] * len(batch)

    monkeypatch.setattr(predicting, "generate_texts", same)
    out = tmp_path / "report"
    assert evaluate([str(tiny_run), "eval.blind=false", "--out", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    assert any("all 24 predictions are the same text" in one for one in report["warnings"])


def test_a_prediction_counts_prompts_that_are_cut(
    tiny_run: Path, degenerate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "short")
    lock = run / "recipe.lock.yaml"
    lock.write_text(lock.read_text().replace("max_text_tokens: 128", "max_text_tokens: 16"))
    assert predict([str(run), str(degenerate), "--workers", "0"]) == 0
    err = capsys.readouterr().err
    assert "of 3 texts data.max_text_tokens (16) cuts 1 prompts" in err
    assert f"first {degenerate.parent / '2.png'}" in err


def test_images_and_questions_that_share_ids_can_be_evaluated_and_compared(
    tiny_run: Path, tmp_path: Path
) -> None:
    asked = [[{"id": n, "question": "Which?", "answer": str(n)}] for n in (1, 2)]
    rows = [{"id": n, "captions": [f"is {n}"], "questions": asked[n - 1]} for n in (1, 2)]
    data = write(tmp_path / "data", *rows)
    given = [str(tiny_run), f"data.eval.path={data}", "data.eval.name=odd", "eval.blind=false"]
    for name in ("a", "b"):
        assert evaluate([*given, "--out", str(tmp_path / name)]) == 0
    lines = (tmp_path / "a" / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["1#captions", "1", "2#captions", "2"]
    against = ["--out", str(tmp_path / "a"), "--against", str(tmp_path / "b")]
    assert evaluate([*given, *against]) == 0
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    assert report["against"]["n"] == 4
    assert "3 images" not in str(report["warnings"])
    assert any("2 images" in warning for warning in report["warnings"])  # kept with the report


def test_captions_that_the_text_branch_does_not_see_whole_are_counted(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from qvft.recipe.load import load_recipe
    from qvft.training.prepare_training import prepare_training
    from qvft.training.run_warnings import run_warnings

    captions = [{"caption": "a red circle " * 20}, {"caption": "a red circle"}]
    data = write(tmp_path / "data", *captions)
    recipe = load_recipe(recipe_file, [f"data.train.path={data}", "objectives={itc: 1.0}"])
    said = run_warnings(prepare_training(recipe))
    message = "reads 32 tokens: it does not see the end of 1 of 2 captions"
    assert f"rows: the text branch of itc, itm and itg {message}" in said


def test_prompts_that_the_qformer_does_not_see_whole_are_counted(
    recipe_file: Path, degenerate: Path
) -> None:
    from dataclasses import replace

    from qvft.data.collate import QuestionReader
    from qvft.data.data_warnings import data_warnings
    from qvft.data.rows import evaluation_rows
    from qvft.recipe.load import load_recipe
    from qvft.training.prepare_training import prepare_training

    work = prepare_training(load_recipe(recipe_file, [f"data.train.path={degenerate}"]))
    collator = work.loaded.collator
    reader = QuestionReader(collator.template.tokenizer, 12)
    rows = evaluation_rows(work.train.samples)
    said = data_warnings(
        rows, replace(collator, reader=reader), images=3, name="rows", training=False
    )
    message = "rows: the Q-Former reads 12 tokens: it does not see the beginning of 1 of 3 prompts"
    assert message in said


def test_images_that_a_format_leaves_out_stand_in_the_report_and_in_the_check(
    tiny_run: Path, recipe_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    data = write(folder, {"text": "a square"}, {"text": "a circle"}, {"text": "no row"})
    rows = [json.loads(line) for line in data.read_text().splitlines()][:2]
    data.unlink()
    lines = [json.dumps({"file_name": row["image"], "text": row["text"]}) for row in rows]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    given = ["data.eval.format=hf", f"data.eval.path={folder}"]
    said = "1 of 3 images have no row in the metadata and are skipped, first 2.png"
    out, found = tmp_path / "report", tmp_path / "found.json"
    assert evaluate([str(tiny_run), *given, "eval.blind=false", "--out", str(out)]) == 0
    assert said in str(json.loads((out / "report.json").read_text())["warnings"])
    assert check([str(recipe_file), *given, "--only", "data", "--json", str(found)]) == 0
    assert said in str(json.loads(found.read_text())["warnings"])
