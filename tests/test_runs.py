"""`qvft runs`: what is read from run folders, what is said of the best two, the page."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from qvft.experiments.side_by_side import runs_table, side_by_side
from qvft.locks import inside
from qvft.recipe.load import merge, parse_recipe
from qvft.recipe.recipe_lock import write_lock
from qvft.runs import main

PLAIN = {"name": "tiny", "model": {"id": "qvft/tiny-blip2"}, "data": {"train": {"path": "a.jsonl"}}}
LOGGED = [{"phase": "train", "step": step, "seconds": step, "loss": 3 / step} for step in (1, 2, 4)]


def write_rows(path: Path, rows: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_run(
    folder: Path, rows: Sequence[Any] = LOGGED, *, finished: bool = True, **changes: Any
) -> Path:
    """A run folder with the files that are read."""
    folder.mkdir(parents=True)
    write_lock(parse_recipe(merge(PLAIN, changes)), folder)
    write_rows(folder / "metrics.jsonl", rows)
    if finished:
        write_rows(folder / "adapter" / "manifest.json", [{}])
    return folder


def add_evaluation(run: Path, right: Sequence[bool], *, reference: str = "yes") -> None:
    """An evaluation of a question per image."""
    rows = [
        {
            "id": f"q{number}",
            "image": f"{number}.png",
            "question": "Is it?",
            "prediction": "yes" if one else "no",
            "references": [reference],
            "scores": {"exact_match": float(one)},
        }
        for number, one in enumerate(right)
    ]
    write_rows(run / "eval" / "val" / "predictions.jsonl", rows)
    share = 100 * sum(right) / len(right)
    report = {
        "n": len(rows),
        "metrics": {"exact_match": share},
        "units": {"exact_match": "percent"},
        "intervals": {"exact_match": [share - 5, share + 5]},
        "definitions": {"exact_match": "v1"},
    }
    (run / "eval" / "val" / "report.json").write_text(json.dumps(report))


def read(folder: Path) -> dict[str, Any]:
    """What `--json` holds."""
    assert main([str(folder), "--json", str(folder / "runs.json")]) == 0
    return json.loads((folder / "runs.json").read_text())


def test_runs_stand_side_by_side_with_what_differs(tmp_path: Path) -> None:
    make_run(tmp_path / "a", train={"learning_rate": 1e-3, "epochs": 2.0})
    make_run(tmp_path / "group" / "b", train={"learning_rate": 1e-4, "epochs": 2.0})
    found = read(tmp_path)
    assert [run["name"] for run in found["runs"]] == ["a", "group/b"]
    # One rate for all groups of weights is one key.
    assert found["differing_keys"] == ["train.learning_rate"]
    assert [run["recipe"]["train.epochs"] for run in found["runs"]] == [2.0, 2.0]


def test_a_single_rate_that_differs_is_named_alone(tmp_path: Path) -> None:
    make_run(tmp_path / "a", train={"learning_rate": {"adapters": 1e-3}})
    make_run(tmp_path / "b", train={"learning_rate": {"adapters": 1e-4}})
    assert read(tmp_path)["differing_keys"] == ["train.learning_rate.adapters"]


def test_steps_go_on_through_phases_and_seconds_through_processes(tmp_path: Path) -> None:
    rows = [
        {"phase": "first", "step": 5, "seconds": 10.0, "loss": 2.0},
        {"phase": "second", "step": 2, "seconds": 4.0, "loss": float("nan")},
        {"phase": "second", "step": 4, "seconds": 3.0, "loss": 1.0, "eval_loss": 1.5},  # resumed
        {"phase": "second", "step": 4, "seconds": 3.0, "peak_memory_gb": 2.5},
    ]
    make_run(tmp_path / "a", rows)
    run = read(tmp_path)["runs"][0]
    assert [(point["step"], point["loss"]) for point in run["curve"]] == [
        (5, 2.0), (7, None), (9, 1.0), (9, None)
    ]  # fmt: skip
    assert run["seconds"] == 10 + 4 + 3 and run["peak_memory_gb"] == 2.5


def test_a_run_is_finished_stopped_running_or_failed(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", finished=False)
    running = make_run(tmp_path / "c", finished=False)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "sweep.json").write_text('{"train": 2, "message": "no such file"}')
    with inside(running):
        found = read(tmp_path)
    assert [run["status"] for run in found["runs"]] == [
        "finished", "stopped at step 4", "running at step 4", "failed: no such file"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("second", "reference", "says"),
    [
        ([True] * 20 + [False] * 20, "yes", "They differ measurably: +50.0 points"),
        ([True] * 39 + [False], "yes", "cannot be told: the difference is +2.5 points"),
        ([True] * 30, "yes", "cannot be told: other rows"),
        ([True] * 39 + [False], "no", "cannot be told: 40 of 40 items"),
    ],
)
def test_the_best_two_are_compared_on_the_same_rows(
    tmp_path: Path, second: list[bool], reference: str, says: str
) -> None:
    add_evaluation(make_run(tmp_path / "worse"), second, reference=reference)
    add_evaluation(make_run(tmp_path / "zbest"), [True] * 40)
    make_run(tmp_path / "unscored")
    found = read(tmp_path)
    assert [run["name"] for run in found["runs"]][-1] == "unscored"
    assert len(found["verdicts"]) == 1 and says in found["verdicts"][0]


def test_damaged_and_foreign_folders_are_named_and_skipped(tmp_path: Path) -> None:
    make_run(tmp_path / "good")
    (make_run(tmp_path / "rows") / "metrics.jsonl").write_text('{"step": 1}\n')
    (make_run(tmp_path / "lock") / "recipe.lock.yaml").write_text("modle: {}\n")
    (tmp_path / "notes").mkdir()
    add_evaluation(make_run(tmp_path / "report"), [True, False])
    (tmp_path / "report" / "eval" / "val" / "report.json").write_text('{"metrics": "many"}')
    found = read(tmp_path)
    assert [run["name"] for run in found["runs"]] == ["good", "report"]
    assert [line.partition(":")[0] for line in found["skipped"]] == [
        "lock", "notes", "report/eval/val", "rows"
    ]  # fmt: skip


def test_a_folder_without_runs_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "absent", make_run(tmp_path / "one")):
        assert main([str(folder)]) == 2
        assert str(folder) in capsys.readouterr().err
        assert not (folder / "runs.html").exists()


def test_the_page_is_one_file_with_curves_and_working_links(tmp_path: Path) -> None:
    for name in ("a b#1", "<b>"):
        add_evaluation(make_run(tmp_path / "runs" / name), [True, False])
    page = tmp_path / "pages" / "all.html"
    assert main([str(tmp_path / "runs"), "--html", str(page)]) == 0
    text = page.read_text()
    assert "<b>" not in text and "://" not in text
    assert text.count("<polyline") == 2  # a curve per run
    heights = [float(y) for y in re.findall(r'class="label c\d" x="[^"]*" y="([^"]*)"', text)]
    assert abs(heights[0] - heights[1]) == 16
    links = re.findall(r'href="([^"]+)"', text)
    reports = [(page.parent / unquote(link)).parent.resolve() for link in links]
    assert sorted(reports) == sorted((tmp_path / "runs").resolve().glob("*/eval/val"))


def test_a_narrow_terminal_leaves_columns_to_the_page(tmp_path: Path) -> None:
    for number in range(3):
        run = make_run(
            tmp_path / f"{number}", train={"epochs": number + 1.0, "weight_decay": 0.1 * number}
        )
        add_evaluation(run, [True, False])
    found = side_by_side(tmp_path)
    wide, narrow = (runs_table(found, width=width) for width in (200, 50))
    assert len(wide.columns) == 2 + len(found.columns) and wide.caption is None
    assert len(narrow.columns) < len(wide.columns) and "page" in str(narrow.caption)


def test_no_torch_is_imported(tmp_path: Path) -> None:
    for name in "ab":
        add_evaluation(make_run(tmp_path / name), [True, False])
    code = (
        "import sys; from qvft.runs import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.endswith("\nFalse\n")
