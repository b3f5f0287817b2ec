"""`qvft.score`: official layouts in, the official evaluators' numbers out."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qvft.evaluation.metrics.captions import NAMES
from qvft.score import main

PROJECT = Path(__file__).resolve().parents[1]
OFFICIAL_NAMES = {"2017": "2017", "2021": "2021_HEAD"}

# The official scripts and this package add the same doubles in another order.
ROUNDING = 1e-12


def write(path: Path, content: Any) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def scores(path: Path, *arguments: str) -> dict[str, Any]:
    """What `--json` holds after a call that ends well."""
    assert main([*arguments, "--json", str(path)]) == 0
    return json.loads(path.read_text())


@pytest.fixture
def captions(tmp_path: Path) -> list[str]:
    """The arguments that score two captions."""
    texts = {1: "a black dog runs", 2: "two people eat lunch"}
    rows = [{"image_id": image, "caption": text} for image, text in texts.items()]
    images = [{"id": image} for image in texts]
    references = write(tmp_path / "captions.json", {"images": images, "annotations": rows})
    predictions = write(tmp_path / "results.json", rows)
    return ["caption", "--references", references, "--predictions", predictions]


@pytest.mark.parametrize("rules", ["2017", "2021"])
@pytest.mark.parametrize("predictions", ["mc", "first_human", "yes"])
def test_vqa_equals_the_official_evaluator_to_the_last_digit(
    shared_data: Path, tmp_path: Path, predictions: str, rules: str
) -> None:
    folder = shared_data / "vqa_v2"
    found = scores(
        tmp_path / "scores.json",
        "vqa",
        f"--questions={folder / 'test_questions.json'}",
        f"--annotations={folder / 'test_annotations.json'}",
        f"--predictions={folder / f'test_results_{predictions}.json'}",
        f"--rules={rules}",
    )
    name = f"test_{predictions}_official_{OFFICIAL_NAMES[rules]}.json"
    official = json.loads((folder / name).read_text())
    assert found["metrics"] == {
        "overall": official["accuracy"]["overall"],
        "per_question_type": official["accuracy"]["perQuestionType"],
        "per_answer_type": official["accuracy"]["perAnswerType"],
    }
    assert found["per_item"] == official["evalQA"]
    assert (found["n"], found["rules"]) == (2962, rules)


def test_vqa_is_scored_by_the_rules_of_2017_unless_told_otherwise(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = shared_data / "vqa_v2"
    found = scores(
        tmp_path / "scores.json",
        "vqa",
        f"--questions={folder / 'test_questions.json'}",
        f"--annotations={folder / 'test_annotations.json'}",
        f"--predictions={folder / 'test_results_mc.json'}",
    )
    assert (found["metrics"]["overall"], found["rules"]) == (96.6, "2017")
    shown = capsys.readouterr().out
    assert "rules of 2017" in shown
    assert "96.60" in shown


def test_captions_equal_the_toolkit_on_real_captions(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "caption_metrics" / "aac_metrics"
    with (folder / "example_1.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))[1:]
    annotations = [
        {"image_id": image, "id": 10 * image + number, "caption": text}
        for image, row in enumerate(rows)
        for number, text in enumerate(row[1:])
    ]
    images = [{"id": image} for image in range(len(rows))]
    references = {"images": images, "annotations": annotations}
    results = [{"image_id": image, "caption": row[0]} for image, row in enumerate(rows)]
    found = scores(
        tmp_path / "scores.json",
        "caption",
        f"--references={write(tmp_path / 'captions.json', references)}",
        f"--predictions={write(tmp_path / 'results.json', list(reversed(results)))}",
    )
    official = json.loads((folder / "official_scores_computed.json").read_text())
    per_item = json.loads((folder / "example_1_per_item.json").read_text())["per_image"]
    assert found["n"] == 464
    assert list(found["metrics"]) == list(NAMES)
    for name in NAMES:
        expected = official["example_1.csv"]["scores"][name]
        assert found["metrics"][name] == pytest.approx(expected, abs=ROUNDING)
        items = [found["per_item"][str(image)][name] for image in range(464)]
        assert items == pytest.approx(per_item[name], abs=ROUNDING)


def test_the_json_says_what_was_scored(captions: list[str], tmp_path: Path) -> None:
    found = scores(tmp_path / "deep" / "scores.json", *captions)
    assert found["metrics"]["CIDEr"] == pytest.approx(10.0, abs=ROUNDING)
    assert (found["n"], list(found["per_item"])) == (2, ["1", "2"])
    assert found["counts"] == {"duplicate_rows": 0, "without_prediction": 0}
    assert found["files"]["predictions"]["path"] == captions[-1]
    assert len(found["files"]["references"]["sha256"]) == 64
    assert "pycocoevalcap 1.2" in found["definition"]


def test_what_was_left_out_is_on_the_screen_and_in_the_json(
    captions: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rows = [{"image_id": "[1]", "caption": "a dog"}, {"image_id": "[1]", "caption": "a cat"}]
    known = [*rows, {"image_id": 2, "caption": "a cow"}]
    references = write(tmp_path / "captions.json", {"annotations": known})
    predictions = write(tmp_path / "results.json", rows)
    found = scores(
        tmp_path / "scores.json",
        "caption",
        "--references",
        references,
        "--predictions",
        predictions,
    )
    shown = capsys.readouterr().out
    assert "rows that repeat an image: 1, first [1]; the first row of an image counts" in shown
    assert "images without a prediction: 1 of 2, left out: 2" in shown
    assert found["counts"] == {"duplicate_rows": 1, "without_prediction": 1}
    assert all(note in shown for note in found["notes"])


@pytest.mark.parametrize(
    "name, content, says",
    [
        ("results.json", [{"image_id": 3, "caption": "x"}], "no reference captions: 3;"),
        ("results.json", {"1": "x"}, "results.json: an object; expected a list"),
        ("results.json", [{"image_id": 1, "caption": 5}], "record 0: `caption` is a number"),
        ("captions.json", [], "captions.json: a list; expected an object with `annotations`"),
        ("captions.json", {"images": []}, "captions.json: `annotations` is missing"),
    ],
)
def test_wrong_input_gets_one_message_and_status_2(
    captions: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    name: str,
    content: Any,
    says: str,
) -> None:
    write(tmp_path / name, content)
    out = tmp_path / "scores.json"
    assert main([*captions, "--json", str(out)]) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.err.startswith("qvft: ")
    assert (captured.err.count("\n"), captured.out, out.exists()) == (1, "", False)


def test_an_output_that_cannot_be_written_is_named(
    captions: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    references = Path(captions[2])
    before = references.read_bytes()
    for path, says in [
        (tmp_path, "a folder; expected a file"),
        (references, "one of the files that are read"),
        (references / "scores.json", "cannot be written"),
        (Path("/proc/nope/scores.json"), "cannot be written"),
        (tmp_path / ("x" * 300), "cannot be written"),
    ]:
        assert main([*captions, "--json", str(path)]) == 2
        captured = capsys.readouterr()
        assert f"qvft: {path}: {says}" in captured.err
        assert (captured.err.count("\n"), captured.out) == (1, "")
    assert references.read_bytes() == before


def test_scores_go_to_stdout_after_the_table(captions: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "qvft.score", *captions, "--json", "/dev/stdout"],
        cwd=PROJECT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    table, _, scored = done.stdout.partition("{")
    assert "CIDEr" in table
    assert json.loads("{" + scored)["n"] == 2
    assert Path("/dev/stdout").is_symlink()


def test_what_came_through_a_pipe_has_no_hash(captions: list[str], tmp_path: Path) -> None:
    predictions = Path(captions[-1]).read_text()
    out = tmp_path / "out.json"
    subprocess.run(
        [sys.executable, "-m", "qvft.score", *captions[:-1], "/dev/stdin", "--json", str(out)],
        cwd=PROJECT, input=predictions, capture_output=True, text=True, check=True,
    )  # fmt: skip
    files = json.loads(out.read_text())["files"]
    assert files["predictions"] == {"path": "/dev/stdin", "sha256": None}
    assert len(files["references"]["sha256"]) == 64


def test_one_image_says_why_its_cider_is_nothing(
    captions: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write(tmp_path / "results.json", [{"image_id": 1, "caption": "a black dog runs"}])
    found = scores(tmp_path / "scores.json", *captions)
    assert (found["n"], found["metrics"]["CIDEr"]) == (1, 0.0)
    says = "one image only: CIDEr is 0 by its definition"
    assert [says in note for note in found["notes"]] == [False, True]
    assert says in capsys.readouterr().out


def test_it_starts_without_torch_and_transformers(captions: list[str]) -> None:
    code = (
        "import sys; from qvft.score import main\n"
        f"status = main({captions!r})\n"
        "heavy = {'torch', 'transformers', 'datasets', 'evaluate', 'scipy', 'PIL', 'asyncio'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(status or ' '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "CIDEr" in done.stdout


def test_a_metric_whose_program_is_absent_is_said_before_anything_is_read(
    captions: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "results.json").write_text("broken")
    assert main([*captions, "--metrics", "meteor"]) == 2
    message = capsys.readouterr().err
    assert "METEOR cannot be computed: no `java` on the PATH" in message
    assert "pip install" in message or "install a Java runtime" in message


def test_meteor_stands_beside_the_others(
    captions: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qvft.evaluation.official import captions as official

    monkeypatch.setattr(official, "meteor_command", lambda: [])
    monkeypatch.setattr(official, "meteor", lambda *_: (0.25, {"1": 0.5, "2": 0.0}))
    found = scores(tmp_path / "out.json", *captions, "--metrics", "METEOR")
    assert found["metrics"]["METEOR"] == 0.25
    assert [found["per_item"][image]["METEOR"] for image in ("1", "2")] == [0.5, 0.0]
    assert "METEOR/1.5" in found["definition"]
