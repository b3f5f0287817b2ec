"""Where an evaluation goes: the same one asked again replaces itself, another one never."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from qvft.eval import main
from qvft.evaluation import evaluate as evaluation

PLAIN = ["eval.blind=false", "data.num_workers=0"]


def run_eval(run: Path, *arguments: str) -> None:
    assert main([str(run), *PLAIN, *arguments]) == 0


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def reports(run: Path) -> dict[str, dict[str, Any]]:
    return {
        path.parent.name: json.loads(path.read_text(encoding="utf-8"))
        for path in (run / "eval").glob("*/report.json")
    }


@pytest.fixture(scope="module")
def evaluated(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = Path(shutil.copytree(tiny_run, tmp_path_factory.mktemp("place") / "run"))
    run_eval(run)
    return run


@pytest.fixture
def run(evaluated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(evaluated, tmp_path / "run"))


@pytest.fixture
def two_files(shapes: Path, tmp_path: Path) -> list[Path]:
    """a/test.jsonl and b/test.jsonl, of other images each."""
    files = []
    for name, split in (("a", "test"), ("b", "train")):
        folder = Path(shutil.copytree(shapes, tmp_path / name))
        (folder / f"{split}.jsonl").replace(folder / "test.jsonl")
        files.append(folder / "test.jsonl")
    return files


def test_two_files_of_one_name_have_a_folder_each(
    run: Path, two_files: list[Path], capsys: pytest.CaptureFixture
) -> None:
    shutil.rmtree(run / "eval")
    first, second = (f"data.eval={{path: '{path}'}}" for path in two_files)
    run_eval(run, first)
    before = content(run / "eval" / "test")
    run_eval(run, second)
    assert content(run / "eval" / "test") == before
    found = reports(run)
    assert {name: report["n"] for name, report in found.items()} == {"test": 24, "test-b": 72}
    said = capsys.readouterr().err
    assert "holds another evaluation (data.images: 8, not 24" in said and "test-b" in said
    run_eval(run, second)  # again: its own folder, no third one
    assert set(reports(run)) == {"test", "test-b"}


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (["data.eval.limit=1"], "shapes-test-limit=1"),
        (["eval.answer.max_new_tokens=2"], "shapes-test-answer.max_new_tokens=2"),
        (["eval.answer.num_beams=2"], "shapes-test-answer.num_beams=2"),
        (["data.prompt.question=Q {question}"], "shapes-test-prompt.question=Q_question"),
        (["model.attn_implementation=eager"], "shapes-test-attention=eager"),
        (["model.image_size=72"], "shapes-test-image_size=72"),
        (["eval.metrics=[captions]"], "shapes-test-metrics=captions"),
        (["data.eval.texts=captions"], "shapes-test-texts=captions"),
    ],
)
def test_an_evaluation_made_otherwise_leaves_the_first_one_alone(
    run: Path, change: list[str], name: str
) -> None:
    before = content(run / "eval" / "shapes-test")
    for _ in range(2):
        run_eval(run, *change)
        assert content(run / "eval" / "shapes-test") == before
        assert set(reports(run)) == {"shapes-test", name}


def test_a_third_evaluation_gets_a_name_of_its_own(run: Path, shapes: Path, tmp_path: Path) -> None:
    for number in range(2):
        moved = Path(shutil.copytree(shapes, tmp_path / f"{number}" / "v"))
        lines = (moved / "test.jsonl").read_text().splitlines()[number : number + 2]
        (moved / "test.jsonl").write_text("\n".join(lines) + "\n")
        run_eval(run, f"data.eval.path={moved / 'test.jsonl'}")
    assert set(reports(run)) == {"shapes-test", "shapes-test-v", "shapes-test-v-2"}


@pytest.mark.parametrize(
    "change",
    [
        ["eval.batch_size=2"],  # as many texts at once as one likes
        ["eval.report_images=1"],
        ["eval.blind=true"],  # more than stood there
    ],
)
def test_the_same_evaluation_takes_its_own_place(run: Path, change: list[str]) -> None:
    run_eval(run, *change)
    assert set(reports(run)) == {"shapes-test"}


def test_after_training_again_the_folder_is_current(run: Path, drawn_run: Path) -> None:
    shutil.rmtree(run / "adapter")
    shutil.copytree(drawn_run / "adapter", run / "adapter")
    before = reports(run)["shapes-test"]["model"]["adapter_sha256"]
    run_eval(run)
    found = reports(run)
    assert set(found) == {"shapes-test"}
    assert found["shapes-test"]["model"]["adapter_sha256"] != before


def test_a_copy_of_the_data_elsewhere_is_the_same_data(
    run: Path, shapes: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(shapes, tmp_path / "moved"))
    run_eval(run, f"data.eval.path={moved / 'test.jsonl'}")
    assert set(reports(run)) == {"shapes-test"}


def test_what_differs_first_names_the_folder(run: Path) -> None:
    """One image alone cannot be shuffled; the name says why there is one."""
    run_eval(run, "--overwrite", "eval.blind=true")
    run_eval(run, "data.eval.limit=1")
    assert set(reports(run)) == {"shapes-test", "shapes-test-limit=1"}


def test_figures_of_shuffled_images_are_not_lost(run: Path) -> None:
    run_eval(run, "eval.blind=true")
    run_eval(run)
    found = reports(run)
    assert set(found) == {"shapes-test", "shapes-test-blind=false"}
    assert "blind" in found["shapes-test"]["baselines"]


def test_a_folder_that_was_named_is_refused_before_a_model_is_loaded(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "report"
    run_eval(run, "--out", str(out))
    before = content(out)
    monkeypatch.setattr(evaluation, "load_resolved", None)
    assert main([str(run), *PLAIN, "--out", str(out), "data.eval.limit=1"]) == 2
    said = capsys.readouterr().err
    assert "holds another evaluation (data.images: 8, not 1" in said and "--overwrite" in said
    assert content(out) == before


def test_overwriting_is_possible_where_it_is_said(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    run_eval(run, "--out", str(out))
    run_eval(run, "--out", str(out), "--overwrite", "data.eval.limit=1")
    assert json.loads((out / "report.json").read_text())["n"] == 3
    run_eval(run, "--overwrite", "data.eval.limit=1")
    assert {name: report["n"] for name, report in reports(run).items()} == {"shapes-test": 3}


def test_the_base_counts_wherever_its_evaluation_went(run: Path, recipe_file: Path) -> None:
    from qvft.recipe.load import load_recipe

    base = load_recipe(recipe_file).model.id
    asked = [base, f"run.dir={run}", "--recipe", str(recipe_file), *PLAIN]
    assert main([*asked, "data.eval.limit=1"]) == 0
    assert main(asked) == 0
    assert len(list((run / "eval-base").glob("*/report.json"))) == 2
    run_eval(run)
    assert "base" in reports(run)["shapes-test"]["baselines"]


@pytest.mark.parametrize("name", ["..", "../../elsewhere", "n" * 300])
def test_a_name_that_is_no_folder_is_refused(
    run: Path, name: str, capsys: pytest.CaptureFixture
) -> None:
    assert main([str(run), *PLAIN, f"data.eval.name={name}"]) == 2
    assert "data.eval.name" in capsys.readouterr().err
    assert set(reports(run)) == {"shapes-test"}


def test_a_file_with_a_long_name_gets_a_folder(run: Path, shapes: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(shapes, tmp_path / "moved"))
    file = (moved / "test.jsonl").rename(moved / f"{'long' * 60}.jsonl")
    shutil.rmtree(run / "eval")
    run_eval(run, f"data.eval={{path: '{file}'}}")
    (name,) = reports(run)
    assert name.startswith("longlong") and len(name) < 100


@pytest.mark.parametrize("step", ["score", "_baselines", "write"])
def test_predictions_are_kept_whatever_fails_after_them(
    run: Path, step: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    before = content(run / "eval" / "shapes-test")

    def fails(*_: Any, **__: Any) -> None:
        raise MemoryError("no room left")

    monkeypatch.setattr(evaluation, step, fails)
    for _ in range(2):
        with pytest.raises(MemoryError):
            main([str(run), *PLAIN])
    kept = sorted((run / "eval").glob("*.jsonl"))
    assert [path.name for path in kept] == [
        "shapes-test.unscored-2.jsonl", "shapes-test.unscored.jsonl",
    ]  # fmt: skip
    rows = [json.loads(line) for line in kept[0].read_text().splitlines()]
    assert len(rows) == 24 and {"id", "image", "prediction", "references"} <= set(rows[0])
    assert "24 predictions that were made are kept in" in capsys.readouterr().err
    assert content(run / "eval" / "shapes-test") == before


def test_a_folder_that_cannot_be_written_is_said_before_the_data_is_read(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    absent = "data.eval.path=absent.jsonl"
    for out in (tmp_path / "file", tmp_path / "file" / "report", Path("/proc/nope")):
        assert main([str(run), *PLAIN, "--out", str(out), absent]) == 2
        said = capsys.readouterr().err
        assert str(out) in said and "absent.jsonl" not in said
