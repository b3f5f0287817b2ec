"""What can be known beforehand is said before anything long begins, by every program."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from qvft.bench import main as bench
from qvft.check import main as check
from qvft.convert import main as convert
from qvft.eval import main as evaluate
from qvft.evaluation import evaluate as evaluation
from qvft.evaluation.explanation import explain as explaining
from qvft.explain import main as explain
from qvft.export import main as export
from qvft.merge import main as merge
from qvft.predict import main as predict
from qvft.train import main as train
from qvft.weights import export as forms
from qvft.weights import merge as merging

PLACES = ["", "file/found", "/proc/nope/x.svg", "x" * 300 + ".svg"]


def long_work(*_: Any, **__: Any) -> None:
    raise AssertionError("something long has begun")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("program", ["bench json", "bench chart", "explain", "predict"])
def test_an_output_that_cannot_be_written(
    program: str, place: str, recipe_file: Path, tiny_run: Path, shapes: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from qvft.benchmark import prediction, training
    from qvft.inference import predictions as predicting

    for module, name in (
        (training, "bench_training"), (prediction, "bench_prediction"),
        (explaining, "explain_image"),
        (predicting, "predictions"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, long_work)
    (tmp_path / "file").write_text("")
    out, image = str(tmp_path / place), str(shapes / "test0.png")
    status = {
        "bench json": lambda: bench([str(recipe_file), "--json", out]),
        "bench chart": lambda: bench([str(recipe_file), "--chart", out]),
        "explain": lambda: explain([str(tiny_run), image, "--out", out]),
        "predict": lambda: predict([str(tiny_run), image, "--out", out]),
    }[program]()
    assert status == 2
    said = capsys.readouterr().err
    assert out in said and ("cannot be written" in said or "expected a file to write" in said)


@pytest.mark.parametrize("place", ["file", "file/run", "/proc/nope"])
@pytest.mark.parametrize("program", [train, check])
def test_a_run_folder_that_cannot_be_written(
    program: Any, place: str, recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    given = [str(recipe_file), f"run.dir={tmp_path / place}", "data.train.path=absent.jsonl"]
    assert program(given) == 2
    said = capsys.readouterr().err
    assert str(tmp_path / place) in said and "absent.jsonl" not in said


def test_a_converted_file_that_exists_is_said_before_the_data_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "out.jsonl").write_text("")
    assert convert(["jsonl", str(tmp_path / "absent.jsonl"), str(tmp_path / "out.jsonl")]) == 2
    assert "out.jsonl: exists already" in capsys.readouterr().err


@pytest.fixture
def without_data(drawn_run: Path, tmp_path: Path) -> Path:
    """A run whose data has gone."""
    run = Path(shutil.copytree(drawn_run, tmp_path / "run"))
    lock = (run / "recipe.lock.yaml").read_text()
    lock = lock.replace("format: drawn", "format: jsonl").replace("seed=2,count=2", "gone.jsonl")
    (run / "recipe.lock.yaml").write_text(lock)
    return run


@pytest.mark.parametrize("program", ["merge", "export"])
def test_a_proof_that_lacks_data(
    program: str, without_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(merging, "_write", long_work)
    monkeypatch.setattr(forms, "reference_outputs", long_work)
    out = tmp_path / "out"
    given = [str(without_data), str(out)]
    assert (merge(given) if program == "merge" else export([*given, "--to", "peft"])) == 2
    said = capsys.readouterr().err
    assert "gone.jsonl" in said and "verified on a few samples" in said
    assert "data.eval.path=YOUR_DATA" in said
    assert not out.exists()


def test_a_proof_whose_every_text_is_cut(
    drawn_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "_write", long_work)
    given = [str(drawn_run), str(tmp_path / "out"), "data.max_text_tokens=8"]
    long = "a prompt of many words that is longer than all the room there is"
    given += [f"data.prompt.caption={long}", f"data.prompt.question={long} {{question}}"]
    assert merge(given) == 2
    assert "data.eval: data.max_text_tokens truncates each" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("metrics", "says"),
    [
        ("vqa_2017", "metrics 'vqa_2017': question"),
        ("vqa_2021", "expected 10 human answers"),
        ("captions", "for data without captions"),
        ("llava_med", "data without closed questions"),
        ("answer", '"answer"; expected some of'),
    ],
)
def test_metrics_that_do_not_fit_the_data(
    metrics: str, says: str, tiny_run: Path, recipe_file: Path, shapes: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Refused by evaluation before a model is loaded, and by the check of a recipe."""
    monkeypatch.setattr(evaluation, "load_resolved", long_work)
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    rows = [json.loads(line) for line in (shapes / "test.jsonl").read_text().splitlines()]
    data = Path(shutil.copytree(shapes, tmp_path / "data"))
    for row in rows:
        row["captions"], row["questions"] = [], row["questions"][:1]  # which colour: open
    (data / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = [f"data.eval.path={data / 'test.jsonl'}", f"eval.metrics=[{metrics}]"]
    assert evaluate([str(run), *given]) == 2
    said = capsys.readouterr().err
    assert "eval.metrics" in said and says in said
    assert check([str(recipe_file), "--only", "data", *given]) == 2
    said = capsys.readouterr().err
    assert "eval.metrics" in said and says in said
    assert not (run / "eval").exists()


def test_metrics_of_captions_do_not_stop_the_most_frequent_answer(
    tiny_run: Path, tmp_path: Path
) -> None:
    """Data with questions too, scored by a group for captions: the baseline has none to score."""
    out = tmp_path / "out"
    given = ["eval.metrics=[captions]", "eval.blind=false", "--out", str(out)]
    assert evaluate([str(tiny_run), *given]) == 0


@pytest.mark.parametrize(
    ("program", "override"),
    [(evaluate, "trainable.lora.r=8"), (evaluate, "train.epochs=3"),
     (evaluate, "run.dir=elsewhere"),
     (evaluate, "data.eval.shuffle_buffer=5"), (merge, "train.epochs=3"),
     (export, "trainable.lora.r=8")],
)  # fmt: skip
def test_keys_that_a_program_ignores(
    program: Any, override: str, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    more = {merge: [str(tmp_path / "out")], export: [str(tmp_path / "out"), "--to", "peft"]}
    assert program([str(tiny_run), *more.get(program, []), override]) == 2
    assert override.partition("=")[0] in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_finished_model_is_not_quantised_in_silence(
    merged: Path, recipe_file: Path, capsys: pytest.CaptureFixture
) -> None:
    given = [str(merged), "--recipe", str(recipe_file), "model.quantization.load_in_4bit=true"]
    assert evaluate(given) == 2
    assert "a finished model is evaluated as it is stored" in capsys.readouterr().err


@pytest.mark.parametrize("field", ["data_seed", "train_sampling_strategy", "do_eval"])
def test_training_arguments_that_change_nothing(
    field: str, recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    given = [f"run.dir={tmp_path / 'run'}", "data.train.path=absent.jsonl"]
    assert train([str(recipe_file), *given, f"train.arguments.{field}=1"]) == 2
    said = capsys.readouterr().err
    assert f"train.arguments.{field}: would have no effect" in said
