"""`qvft.predict` from the command line."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import qvft.inference.predict as predicting
from qvft.errors import RecipeError
from qvft.inference import generation_trial as trial
from qvft.inference.encoding import encode_images
from qvft.inference.predictions import field_options
from qvft.predict import main

Ask = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def images(shapes: Path, tmp_path: Path) -> Path:
    """A folder of three images."""
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(3):
        shutil.copy(shapes / f"test{index}.png", folder)
    return folder


@pytest.fixture
def ask(tiny_run: Path, tmp_path: Path) -> Ask:
    """A function that calls the program on a run and returns the rows it wrote."""

    def call(*arguments: str | Path, model: Path = tiny_run) -> list[dict[str, Any]]:
        out = tmp_path / "out" / "rows.jsonl"
        given = [str(model), *map(str, arguments), "--out", str(out), "--workers", "0"]
        assert main(given) == 0
        return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]

    return call


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one message of a call that must end with status 2."""
    assert main(list(map(str, arguments))) == 2
    captured = capsys.readouterr()
    assert captured.err.count("qvft: ") == 1
    assert "Traceback" not in captured.err
    assert captured.out == ""
    return captured.err


def test_an_image_gets_a_caption(ask: Ask, images: Path) -> None:
    (row,) = ask(images / "test0.png")
    assert set(row) == {"image", "text"}
    assert row["image"] == str(images / "test0.png")


def test_folders_and_globs_give_a_row_an_image(ask: Ask, images: Path) -> None:
    expected = {str(images / f"test{index}.png") for index in range(3)}
    assert {row["image"] for row in ask(images)} == expected
    assert {row["image"] for row in ask(images / "*.png")} == expected


def test_a_question_stands_in_its_rows(ask: Ask, images: Path) -> None:
    rows = ask(images, "--question", "Is it red?")
    assert len(rows) == 3
    assert {row["question"] for row in rows} == {"Is it red?"}
    assert all(set(row) == {"image", "question", "text"} for row in rows)


def test_jsonl_rows_ask_their_own_questions(ask: Ask, images: Path) -> None:
    rows = [
        {"image": "test0.png", "question": "Which colour is it?"},
        {"image": "test1.png", "questions": [{"question": "Is it red?"}]},
        {"image": "test2.png"},
    ]
    file = images / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = {Path(row["image"]).name: row.get("question") for row in ask(file)}
    assert found == {
        "test0.png": "Which colour is it?", "test1.png": "Is it red?", "test2.png": None,
    }  # fmt: skip


def test_a_merged_folder_answers_without_a_recipe(ask: Ask, images: Path, merged: Path) -> None:
    assert len(ask(images, "--max_new_tokens", "2", model=merged)) == 3


def test_a_broken_image_gives_an_error_row_and_stops_nothing(ask: Ask, images: Path) -> None:
    (images / "broken.png").write_bytes((images / "test0.png").read_bytes()[:60])
    rows = {Path(row["image"]).name: row for row in ask(images, "--question", "Is it red?")}
    assert set(rows["broken.png"]) == {"image", "question", "error"}
    assert all("text" in rows[f"test{index}.png"] for index in range(3))


def test_a_missing_image_of_a_jsonl_row_gives_an_error_row(ask: Ask, images: Path) -> None:
    file = images / "rows.jsonl"
    file.write_text('{"image": "absent.png"}\n{"image": "test0.png"}\n')
    assert ask(file)[0] == {"image": str(images / "absent.png"), "error": "no such file"}


def test_rows_go_to_standard_output_without_a_file(tiny_run: Path, images: Path, capsys) -> None:
    assert main([str(tiny_run), str(images), "--workers", "0"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {Path(row["image"]).name for row in rows} == {"test0.png", "test1.png", "test2.png"}


def test_generation_fields_arrive_by_name(
    ask: Ask, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Mapping[str, Any]] = []

    def remember(model: Any, collator: Any, batch: Any, generation: Mapping[str, Any]) -> list:
        seen.append(generation)
        return [("said",)] * len(batch)

    monkeypatch.setattr(trial, "_try", lambda *_: None)  # it generates too
    monkeypatch.setattr(predicting, "generate_texts", remember)
    rows = ask(images, "--num_beams", "3", "--length-penalty=-1.5", "--early_stopping", "true")
    assert [row["text"] for row in rows] == ["said"] * 3
    assert seen == [
        {
            "max_new_tokens": 4,  # of the run's recipe
            "num_beams": 3,
            "do_sample": False,
            "length_penalty": -1.5,
            "early_stopping": True,
        }
    ]


def test_rows_come_in_the_order_named(ask: Ask, images: Path) -> None:
    """Captions and questions of several lengths are batched apart, and broken images in between."""
    (images / "broken.png").write_bytes(b"no image")
    asked = [
        ("test1.png", "Which colour is it that the picture shows from its left to its right?"),
        ("broken.png", None),
        ("test0.png", None),
        ("test2.png", "Is it red?"),
        ("test1.png", "Is it red?"),
        ("test0.png", "Which colour is it?"),
    ]
    file = images / "rows.jsonl"
    lines = [{"image": name} | ({"question": text} if text else {}) for name, text in asked]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for size in ("1", "2", "16"):
        found = ask(file, "--batch-size", size)
        assert [(Path(row["image"]).name, row.get("question")) for row in found] == asked
        assert ["error" in row for row in found] == [False, True, False, False, False, False]


def test_ids_of_rows_and_questions_come_through(ask: Ask, images: Path) -> None:
    file = images / "rows.jsonl"
    row = {
        "id": "a7",
        "image": "test0.png",
        "questions": [{"id": 12, "question": "Is it red?"}, {"question": "Is it green?"}],
    }
    file.write_text(json.dumps(row) + "\n")
    assert [found["id"] for found in ask(file)] == ["12", "a7#2"]


def test_an_image_is_encoded_once_however_many_questions_it_has(
    ask: Ask, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []

    def counting(model: Any, pixels: Any) -> Any:
        encoded.append(len(pixels))
        return encode_images(model, pixels)

    monkeypatch.setattr("qvft.inference.encoding.encode_images", counting)
    file = images / "rows.jsonl"
    texts = [f"Is it {colour}?" for colour in ("red", "green", "blue", "a colour that I know")]
    asked = [(f"test{number}.png", text) for text in texts for number in range(3)]
    lines = [json.dumps({"image": name, "question": text}) for name, text in asked]
    file.write_text("\n".join(lines))
    assert len(ask(file, "--batch-size", "2")) == 12
    assert encoded == [2, 1]


def test_several_sequences_stand_beside_the_first(ask: Ask, images: Path) -> None:
    given = ("--num_beams", "3", "--num_return_sequences", "3")
    rows = ask(images, *given)
    assert all(len(row["texts"]) == 3 and row["text"] == row["texts"][0] for row in rows)
    single = ask(images, "--num_beams", "3")
    assert [row["text"] for row in rows] == [row["text"] for row in single]


def test_sampling_is_the_same_every_time(ask: Ask, images: Path) -> None:
    sampled = ("--do_sample", "true", "--temperature", "5.0", "--max_new_tokens", "12")
    first = ask(images, *sampled)
    assert ask(images, *sampled) == first
    assert first != ask(images, "--max_new_tokens", "12")


def test_stop_strings_end_a_text(ask: Ask, images: Path) -> None:
    long = [row["text"] for row in ask(images, "--max_new_tokens", "12")]
    letter = long[0][1]
    short = [row["text"] for row in ask(images, "--max_new_tokens=12", f"--stop_strings={letter}")]
    assert len(short[0]) < len(long[0])
    assert letter in short[0]


def test_a_field_without_effect_is_said(ask: Ask, images: Path, capsys) -> None:
    ask(images / "test0.png", "--temperature", "0.5")
    assert "do_sample" in capsys.readouterr().err


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def kill_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets `count` batches be decoded and kills the program at the next."""
    generate, done = predicting.generate_texts, []

    def killed(*arguments: Any) -> Any:
        if len(done) == count:
            raise Killed
        done.append(1)
        return generate(*arguments)

    monkeypatch.setattr(predicting, "generate_texts", killed)


def test_a_stopped_run_goes_on_where_it_was(
    tiny_run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    out = tmp_path / "rows.jsonl"
    given = [str(tiny_run), str(images), "--out", str(out), "--workers=0", "--batch-size=1"]
    assert main(given) == 0
    whole = out.read_text()
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(2, patch)
        main(given)
    assert out.read_text() == "".join(whole.splitlines(keepends=True)[:2])
    assert "continue with --resume" in refused(capsys, *given)
    with out.open("a") as stream:
        stream.write('{"image": "torn')
    counted: list[int] = []
    generate = predicting.generate_texts
    monkeypatch.setattr(
        predicting, "generate_texts", lambda *a: counted.append(len(a[2])) or generate(*a)
    )
    assert main([*given, "--resume"]) == 0
    assert out.read_text() == whole
    assert sum(counted) == 1
    assert sorted(path.name for path in tmp_path.glob("rows*")) == [
        "rows.jsonl",
        "rows.jsonl.settings.json",
    ]


def test_resume_finishes_a_file_that_lacks_its_mark_alone(
    tiny_run: Path, images: Path, tmp_path: Path
) -> None:
    """A run may be killed between its last row and the mark."""
    out = tmp_path / "rows.jsonl"
    given = [str(tiny_run), str(images), "--out", str(out), "--workers", "0"]
    assert main(given) == 0
    beside = tmp_path / "rows.jsonl.settings.json"
    settings = beside.read_text()
    rows = out.read_text()
    beside.write_text(settings.replace('"finished": true', '"finished": false'))
    assert main([*given, "--resume"]) == 0
    assert (beside.read_text(), out.read_text()) == (settings, rows)


def test_a_finished_file_is_left_as_it_is_by_resume(
    tiny_run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "rows.jsonl"
    given = [str(tiny_run), str(images), "--out", str(out), "--workers=0"]
    assert main(given) == 0
    whole = out.read_text()
    kill_after(0, monkeypatch)
    assert main([*given, "--resume"]) == 0
    assert out.read_text() == whole


def test_rows_made_otherwise_are_never_vouched_for(
    tiny_run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between the new settings and the first new row leaves no row of the old settings."""
    import qvft.inference.prediction_file as file

    out = tmp_path / "rows.jsonl"
    given = [str(tiny_run), str(images), "--out", str(out), "--workers=0"]
    assert main(given) == 0
    write = file.write_json

    def write_and_die(path: Path, content: Any) -> None:
        write(path, content)
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(file, "write_json", write_and_die)
        main([*given, "--num_beams", "2"])
    assert out.read_text() == ""


@pytest.mark.parametrize(
    ("changed", "said"),
    [(["--question", "Is it red?"], "is about"), (["--num_beams", "2"], "decoding")],
)
def test_resume_refuses_rows_that_are_not_those_asked_for(
    tiny_run: Path, images: Path, tmp_path: Path, monkeypatch, capsys, changed: list, said: str
) -> None:
    out = tmp_path / "rows.jsonl"
    given = [str(tiny_run), str(images), "--out", str(out), "--workers=0", "--batch-size=1"]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(1, patch)
        main(given)
    before = out.read_bytes()
    assert said in refused(capsys, *given, "--resume", *changed)
    assert out.read_bytes() == before


def test_resume_without_a_file_is_refused(tiny_run: Path, images: Path, capsys) -> None:
    assert "has no --out" in refused(capsys, tiny_run, images, "--resume")


def test_values_are_read_as_yaml() -> None:
    given = ["--top_p=1e-1", "--do_sample", "true", "--suppress_tokens", "[3, 4]"]
    assert field_options(given) == {"top_p": 0.1, "do_sample": True, "suppress_tokens": [3, 4]}


@pytest.mark.parametrize("given", [["--num_beams"], ["--num_beams="], ["stray"]])
def test_an_option_without_value_or_name_is_refused(given: list[str]) -> None:
    with pytest.raises(RecipeError):
        field_options(given)


def test_an_unknown_field_is_told_the_nearest_one(tiny_run: Path, images: Path, capsys) -> None:
    message = refused(capsys, tiny_run, images, "--num_beems", "2")
    assert (
        '--num_beems: is not a field of transformers.GenerationConfig; did you mean "num_beams"'
        in (message)
    )


def test_max_length_is_refused(tiny_run: Path, images: Path, capsys) -> None:
    message = refused(capsys, tiny_run, images, "--max_length", "20")
    assert "use max_new_tokens" in message


def test_a_model_that_is_not_there_leaves_an_earlier_output_alone(
    images: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "rows.jsonl"
    out.write_text("earlier\n")
    message = refused(capsys, tmp_path / "absent", images, "--out", out)
    assert "no such folder" in message
    assert out.read_text() == "earlier\n"


def test_a_hub_id_that_is_not_to_be_had_says_what_to_do(images: Path, capsys) -> None:
    assert "hf download nobody/nothing" in refused(capsys, "nobody/nothing", images)


@pytest.mark.parametrize(
    "setting",
    [
        "--num_beams=five",
        "--num_beams=-1",
        "--do_sample=maybe",
        "--max_new_tokens=0",
        "--num_return_sequences=2",
    ],
)
def test_a_value_that_transformers_refuses_is_told(
    tiny_run: Path, images: Path, tmp_path: Path, capsys, setting: str
) -> None:
    out = tmp_path / "rows.jsonl"
    message = refused(capsys, tiny_run, images, "--workers", "0", "--out", out, setting)
    assert setting.removeprefix("--").partition("=")[0] in message
    assert not out.exists()


def test_a_name_that_matches_no_image_is_refused(tiny_run: Path, tmp_path: Path, capsys) -> None:
    assert "matches no image" in refused(capsys, tiny_run, tmp_path / "*.png")


def test_a_folder_is_no_output_file(tiny_run: Path, images: Path, tmp_path: Path, capsys) -> None:
    message = refused(capsys, tiny_run, images, "--out", tmp_path)
    assert "expected a file to write" in message


def test_an_empty_batch_is_refused(tiny_run: Path, images: Path, capsys) -> None:
    assert "expected 1 or more" in refused(capsys, tiny_run, images, "--batch-size", "0")


def test_resume_notices_other_weights_at_the_same_place(
    tiny_run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    out = tmp_path / "rows.jsonl"
    given = [str(run), str(images), "--out", str(out), "--workers=0", "--batch-size=1"]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(1, patch)
        main(given)
    settings = tmp_path / "rows.jsonl.settings.json"
    content = json.loads(settings.read_text())
    content["settings"]["weights"]["adapter_model.safetensors"] = "0" * 64
    settings.write_text(json.dumps(content))
    assert "another weights" in refused(capsys, *given, "--resume")


@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_a_file_that_is_no_output_is_not_touched(
    tiny_run: Path, images: Path, tmp_path: Path, capsys, resume: list[str]
) -> None:
    out = tmp_path / "notes.txt"
    out.write_text("mine")
    message = refused(capsys, tiny_run, images, "--out", out, *resume)
    assert "it has no notes.txt.settings.json" in message
    assert out.read_text() == "mine"


def test_an_input_is_no_output(tiny_run: Path, images: Path, capsys) -> None:
    file = images / "rows.jsonl"
    file.write_text('{"image": "test0.png"}\n')
    assert "is also read" in refused(capsys, tiny_run, file, "--out", file)


def test_an_output_that_cannot_be_made_is_refused_before_the_model_is_loaded(
    tiny_run: Path, images: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qvft.inference.predictions.VisionLanguageModel", None)
    out = images / "test0.png" / "rows.jsonl"
    assert "cannot be written" in refused(capsys, tiny_run, images, "--out", out)


def test_texts_with_odd_line_ends_and_odd_file_names_are_resumed(
    tiny_run: Path, images: Path, tmp_path: Path
) -> None:
    odd = os.fsdecode(os.fsencode(str(images)) + b"/non\xffutf8.png")
    shutil.copy(images / "test0.png", odd)
    file = images / "rows.jsonl"
    row = {"image": "test1.png", "question": "Is it\u2028red?"}
    file.write_text(json.dumps(row) + "\n")
    out = tmp_path / "rows.jsonl"
    given = [str(tiny_run), str(images), str(file), "--out", str(out), "--workers=0"]
    assert main(given) == 0
    whole = out.read_bytes()
    rows = [json.loads(line) for line in whole.splitlines() if line]
    assert odd in {row["image"] for row in rows}
    assert all("text" in row for row in rows)
    assert main([*given, "--resume"]) == 0
    assert out.read_bytes() == whole


def test_ctrl_c_is_one_line_and_130(
    tiny_run: Path, images: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(predicting, "generate_texts", stop)
    assert main([str(tiny_run), str(images), "--workers", "0"]) == 130
    assert capsys.readouterr().err.endswith("qvft: stopped\n")
