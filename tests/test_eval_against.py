"""`qvft.eval A --against B`: what is used again, what is refused, what stays as it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from qvft.eval import main
from qvft.evaluation import evaluate as evaluation
from qvft.recipe.load import load_recipe

PLAIN = ["eval.blind=false", "data.num_workers=0"]


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def texts(folder: Path) -> dict[str, str]:
    lines = (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["id"]: row["prediction"] for row in map(json.loads, lines)}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the models whose weights are loaded, in order."""
    found: list[str] = []
    load = evaluation.load_resolved

    def noted(opened: Any) -> Any:
        found.append(opened.name)
        return load(opened)

    monkeypatch.setattr(evaluation, "load_resolved", noted)
    return found


@pytest.fixture(scope="module")
def evaluated(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its evaluation."""
    run = Path(shutil.copytree(tiny_run, tmp_path_factory.mktemp("evaluated") / "a"))
    assert main([str(run), *PLAIN]) == 0
    return run


@pytest.fixture
def a(evaluated: Path, tmp_path: Path) -> Path:
    """The run A with its evaluation, to change at will."""
    return Path(shutil.copytree(evaluated, tmp_path / "a"))


@pytest.fixture
def earlier(a: Path, tmp_path: Path) -> Path:
    """An evaluation of the same items whose first question got another answer."""
    folder = Path(shutil.copytree(a / "eval" / "shapes-test", tmp_path / "earlier"))
    file = folder / "predictions.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    first = next(row for row in rows if "question" in row)
    first["prediction"] = first["references"][0] if first["scores"]["exact_match"] == 0 else "x y"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def test_two_evaluations_that_stand_are_compared_without_a_model(
    a: Path, earlier: Path, loads: list[str], capsys
) -> None:
    folder = a / "eval" / "shapes-test"
    before = read(folder)
    assert main([str(a), "--against", str(earlier), *PLAIN]) == 0
    report = read(folder)
    against = report.pop("against")
    assert loads == []
    assert before.pop("against") is None
    before["model"]["name"] = str(a)  # the folder was copied
    assert report == before
    assert against["counts"]["changed"] == 1 and against["n"] == 24
    one_of_16 = 100 / 16 * (-1 if against["changed"][0]["change"] == "worse" else 1)
    metric = against["metrics"]["exact_match"]
    assert metric["difference"] == pytest.approx(one_of_16)
    assert metric["a"] - metric["b"] == pytest.approx(one_of_16)
    assert against["settings"] == []
    said = " ".join(capsys.readouterr().out.split())
    assert "a minus earlier, on the same 24 texts" in said


def test_the_page_shows_the_comparison(a: Path, earlier: Path) -> None:
    assert main([str(a), "--against", str(earlier), *PLAIN]) == 0
    page = (a / "eval" / "shapes-test" / "report.html").read_text(encoding="utf-8")
    assert "Against earlier" in page and 'data-show="changed"' in page


def test_a_run_without_an_evaluation_is_asked_about_the_same_data(
    a: Path, drawn_run: Path, tmp_path: Path, loads: list[str]
) -> None:
    """Though its own recipe names other data, and decodes otherwise."""
    b = Path(shutil.copytree(drawn_run, tmp_path / "b"))
    assert main([str(a), "--against", str(b), *PLAIN]) == 0
    assert loads == [str(b)]
    other = read(b / "eval" / "shapes-test")
    own = read(a / "eval" / "shapes-test")
    assert other["data"] == own["data"] and other["decode"] == own["decode"]
    assert own["against"]["n"] == 24 and own["against"]["settings"] == []
    assert own["against"]["origin"] == "evaluated for this comparison"
    loads.clear()
    assert main([str(a), "--against", str(b), *PLAIN]) == 0
    assert loads == []
    assert read(a / "eval" / "shapes-test")["against"]["origin"] == "an evaluation that stood there"


def test_another_report_of_the_other_run_is_not_replaced(
    a: Path, drawn_run: Path, tmp_path: Path, shapes: Path, loads: list[str]
) -> None:
    b = Path(shutil.copytree(drawn_run, tmp_path / "b"))
    data = [f"data.eval={{path: '{shapes / 'test.jsonl'}', name: shapes-test}}"]
    assert main([str(b), *data, *PLAIN, "eval.answer.max_new_tokens=2"]) == 0
    before = content(b / "eval" / "shapes-test")
    for _ in range(2):
        assert main([str(a), "--against", str(b), *PLAIN]) == 0
    assert content(b / "eval" / "shapes-test") == before
    assert (b / "eval-against" / "shapes-test" / "report.json").is_file()
    assert loads == [str(b), str(b)]  # its own evaluation, and once for the comparison


def test_other_settings_of_an_evaluation_that_was_named_are_said(
    a: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "short"
    assert main([str(a), "--out", str(out), *PLAIN, "eval.answer.max_new_tokens=2"]) == 0
    assert main([str(a), "--against", str(out), *PLAIN]) == 0
    settings = read(a / "eval" / "shapes-test")["against"]["settings"]
    assert settings == [{"setting": "decode.questions.max_new_tokens", "a": 4, "b": 2}]
    assert "decode.questions.max_new_tokens: 4 and 2" in " ".join(capsys.readouterr().out.split())


def test_a_merged_folder_keeps_the_prompts_it_was_trained_with(
    a: Path, merged: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(merged, tmp_path / "merged"))
    prompt = {"caption": "", "question": "Q: {question} A:"}
    facts = json.loads((out / "merge.json").read_text(encoding="utf-8"))
    (out / "merge.json").write_text(json.dumps({**facts, "prompt": prompt}), encoding="utf-8")
    assert main([str(a), "--against", str(out), *PLAIN]) == 0
    against = read(a / "eval" / "shapes-test")["against"]
    assert [item["setting"] for item in against["settings"]] == ["decode.prompt.question"]
    assert read(out / "eval" / "shapes-test")["decode"]["prompt"] == prompt


def test_the_base_is_compared_where_its_evaluation_belongs(a: Path, recipe_file: Path) -> None:
    base = load_recipe(recipe_file).model.id
    assert main([str(a), "--against", base, *PLAIN]) == 0
    report = read(a / "eval" / "shapes-test")
    assert read(a / "eval-base" / "shapes-test")["model"]["kind"] == "base"
    assert report["baselines"]["base"]["exact_match"] == pytest.approx(
        report["against"]["metrics"]["exact_match"]["b"]
    )


def test_a_report_may_be_compared_with_the_one_it_replaces(a: Path) -> None:
    folder = a / "eval" / "shapes-test"
    before = texts(folder)
    changed = ["eval.caption.max_new_tokens=1", "--overwrite"]
    assert main([str(a), "--against", str(folder), *PLAIN, *changed]) == 0
    after, against = texts(folder), read(folder)["against"]
    assert {item["id"]: item["prediction_b"] for item in against["changed"]} == {
        key: before[key] for key in before if before[key] != after[key]
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["eval.answer.max_new_tokens=3"], "decode.questions.max_new_tokens"),
        (["data.max_text_tokens=64"], "decode.max_text_tokens"),
        (["model.attn_implementation=eager"], "model.attention"),
        (["data.eval.limit=4"], "data.images"),
        (["eval.metrics=[captions]"], "metrics: "),
        (["eval.blind=true"], "other baselines"),
    ],
)
def test_a_report_made_otherwise_is_not_used_again(
    a: Path, earlier: Path, loads: list[str], capsys, change: list[str], said: str
) -> None:
    assert main([str(a), "--against", str(earlier), *PLAIN, *change]) == 0
    assert loads == [str(a)]
    assert said in capsys.readouterr().err


def test_other_weights_are_asked_again(
    a: Path, earlier: Path, drawn_run: Path, loads: list[str], capsys
) -> None:
    shutil.rmtree(a / "adapter")
    shutil.copytree(drawn_run / "adapter", a / "adapter")
    assert main([str(a), "--against", str(earlier), *PLAIN]) == 0
    assert loads == [str(a)]
    assert "model.adapter_sha256" in capsys.readouterr().err


def test_other_pixels_under_the_same_names_are_asked_about_again(
    a: Path, earlier: Path, shapes: Path, tmp_path: Path, loads: list[str]
) -> None:
    from PIL import Image

    moved = Path(shutil.copytree(shapes, tmp_path / "moved"))
    data = f"data.eval.path={moved / 'test.jsonl'}"
    assert main([str(a), "--against", str(earlier), *PLAIN, data]) == 0
    assert loads == []  # a copy is the same data
    Image.new("RGB", (40, 32), (9, 9, 9)).save(moved / "test0.png")
    assert main([str(a), "--against", str(earlier), *PLAIN, data]) == 0
    assert loads == [str(a)]


def test_items_that_one_side_lacks_are_left_out_and_counted(
    a: Path, earlier: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "few"
    few = [str(a), "--out", str(out), *PLAIN, "data.eval.limit=3"]
    assert main([*few, "--against", str(earlier)]) == 0
    against = read(out)["against"]
    assert (against["n"], against["only_in_a"], against["only_in_b"]) == (9, 0, 15)
    assert len(against["left_out_b"]) == 15
    assert "15 items are not compared" in capsys.readouterr().err
    assert main([str(a), "--against", str(out), *PLAIN]) == 0
    report = read(a / "eval" / "shapes-test")
    assert (report["n"], report["against"]["n"], report["against"]["only_in_a"]) == (24, 9, 15)


@pytest.mark.parametrize(
    ("key", "value"),
    [("question", "Which?"), ("references", ["violet"]), ("image", "other.png")],
)
def test_other_items_under_the_same_ids_are_refused_and_nothing_changes(
    a: Path, earlier: Path, loads: list[str], capsys, key: str, value: Any
) -> None:
    before = content(a / "eval" / "shapes-test")
    file = earlier / "predictions.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    row = next(row for row in rows if "question" in row)
    row[key] = value
    file.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    assert main([str(a), "--against", str(earlier), *PLAIN]) == 2
    message = capsys.readouterr().err
    assert f"{row['id']!r}: {key}" in message and "1 of 24 items" in message
    assert "Which" not in message and "violet" not in message  # ids are named, texts are not
    assert content(a / "eval" / "shapes-test") == before and loads == []


def test_a_damaged_evaluation_is_named_and_nothing_changes(a: Path, earlier: Path, capsys) -> None:
    before = content(a / "eval" / "shapes-test")
    file = earlier / "predictions.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join([*lines[:-1], '{"id": 3}']), encoding="utf-8")
    assert main([str(a), "--against", str(earlier), *PLAIN]) == 2
    assert f"{file}:24" in capsys.readouterr().err
    file.write_text("\n".join(lines[:-1]), encoding="utf-8")
    assert main([str(a), "--against", str(earlier), *PLAIN]) == 2
    assert "23 predictions" in capsys.readouterr().err
    assert content(a / "eval" / "shapes-test") == before


def test_a_failure_of_the_other_model_leaves_the_report_as_it_was(
    a: Path, drawn_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = Path(shutil.copytree(drawn_run, tmp_path / "b"))
    before = content(a / "eval" / "shapes-test")

    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(evaluation, "predict_shared", fails)
    with pytest.raises(RuntimeError, match="out of memory"):
        main([str(a), "--against", str(b), *PLAIN, "eval.answer.max_new_tokens=3"])
    assert content(a / "eval" / "shapes-test") == before


def test_a_folder_that_is_nothing_to_compare_with_is_refused(a: Path, tmp_path, capsys) -> None:
    assert main([str(a), "--against", str(tmp_path), *PLAIN]) == 2
    assert "neither a run, a model nor an evaluation" in capsys.readouterr().err
    assert main([str(a), "--against", str(tmp_path / "absent"), *PLAIN]) == 2


def test_a_damaged_report_of_the_run_itself_is_made_again(
    a: Path, earlier: Path, loads: list[str]
) -> None:
    (a / "eval" / "shapes-test" / "report.json").write_text("{", encoding="utf-8")
    assert main([str(a), "--against", str(earlier), *PLAIN]) == 0
    assert loads == [str(a)] and read(a / "eval" / "shapes-test")["n"] == 24


def test_the_report_names_the_weights_it_was_made_with(evaluated: Path) -> None:
    from qvft.files import sha256_file

    model = read(evaluated / "eval" / "shapes-test")["model"]
    manifest = json.loads((evaluated / "adapter" / "manifest.json").read_text())
    assert model["base_weights_sha256"] == manifest["base_weights_sha256"]
    assert model["recipe_sha256"] == manifest["recipe_sha256"]
    assert model["adapter_sha256"]["bridge.safetensors"] == sha256_file(
        evaluated / "adapter" / "bridge.safetensors"
    )
