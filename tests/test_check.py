"""`qvft.check`: everything short of the first step, on a small model and small data."""

import json
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qvft.check import main

PROJECT = Path(__file__).resolve().parents[1]


def checked(recipe: Path, folder: Path, *arguments: str) -> dict[str, Any]:
    """What `--json` holds after a check that passes."""
    file = folder / "findings.json"
    assert main([str(recipe), *arguments, "--json", str(file)]) == 0
    return json.loads(file.read_text())


@pytest.fixture(scope="module")
def whole(recipe_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `--json` holds, and as `printed` what the screen showed."""
    folder = tmp_path_factory.mktemp("check")
    arguments = (f"run.dir={folder / 'run'}", "train.gradient_checkpointing=true")
    with redirect_stdout(StringIO()) as screen:
        return {**checked(recipe_file, folder, *arguments), "printed": screen.getvalue()}


@pytest.fixture
def own_data(shapes: Path, tmp_path: Path) -> Path:
    """A copy of the small dataset that a test may break."""
    return Path(shutil.copytree(shapes, tmp_path / "data"))


def test_data_is_counted(whole: dict[str, Any]) -> None:
    train = whole["train"]
    assert (train["images"], train["captions"], train["questions"]) == (24, 24, 48)
    assert (train["rows"], train["skipped"], train["cut_rows"]) == (72, [], 0)
    least, median, most = train["target_tokens"]
    assert 2 <= least <= median <= most < train["longest"]
    assert whole["eval"]["name"] == "shapes-test"


def test_the_whole_check_fits_a_screen_and_ends_with_the_next_command(
    whole: dict[str, Any],
) -> None:
    lines = whole["printed"].splitlines()
    assert len(lines) - len(whole["warnings"]) - len(whole["notes"]) <= 24
    assert lines[-1].startswith("next: qvft train ")


def test_three_rows_are_shown_in_tokens(whole: dict[str, Any]) -> None:
    assert len(whole["shown"]) == 3
    assert {shown["kind"] for shown in whole["shown"]} == {"caption", "question"}
    question = next(shown for shown in whole["shown"] if shown["kind"] == "question")
    assert set(question) == {"id", "kind", "image_tokens", "prompt_tokens", "supervised_tokens"}
    tokens = (question["image_tokens"], question["prompt_tokens"], question["supervised_tokens"])
    assert sum(tokens) <= whole["train"]["longest"]
    assert min(tokens) >= 2


def test_each_phase_has_its_table_targets_memory_and_steps(whole: dict[str, Any]) -> None:
    (phase,) = whole["phases"]
    components = {row["component"]: row for row in phase["components"]}
    assert components["vision"]["trainable"] == 0
    assert components["qformer"]["percent"] == 100
    assert phase["total"]["trainable"] == sum(row["trainable"] for row in phase["components"])
    assert {name.rpartition(".")[2] for name in phase["lora_targets"]} == {"q_proj", "v_proj"}
    assert phase["steps"] == 6
    for memory in phase["memory"]:
        parts = memory["weights"] + memory["trained_states"] + memory["activations"]
        assert memory["total"] == parts > 0


def test_the_preflight_passes_with_recomputed_activations(whole: dict[str, Any]) -> None:
    """Traps 1, 3, 6 and 17."""
    assert len(whole["checks"]) == 6
    assert all(check["passed"] for check in whole["checks"])
    reached = whole["checks"][-1]["detail"]
    for component in ("qformer", "query_tokens", "language_projection", "adapters"):
        assert component in reached


def test_no_text_of_the_data_stands_on_the_screen(
    recipe_file: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main([str(recipe_file), "--only", "data"]) == 0
    shown = capsys.readouterr().out
    assert "target" in shown
    assert "Which colour" not in shown and "Question:" not in shown
    assert "frozen" not in shown and "preflight" not in shown


def test_images_on_both_sides_are_a_warning(whole: dict[str, Any]) -> None:
    """The first eight images of the two splits are drawn alike."""
    assert any("8 of 8 images of shapes-test are also in train" in w for w in whole["warnings"])


def test_equal_ids_of_other_images_are_told_apart(
    recipe_file: Path, own_data: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (9, 9), "white").save(own_data / "other.png")
    row = {"id": "train0", "image": "other.png", "captions": ["white"]}
    (own_data / "test.jsonl").write_text(json.dumps(row) + "\n")
    found = checked(
        recipe_file, tmp_path, f"data.eval.path={own_data / 'test.jsonl'}", "--only", "data"
    )
    assert found["notes"] == [
        "1 of 1 ids, of other images, of shapes-test are also in train, first train0"
    ]


def test_skipped_images_are_listed_with_their_reason(
    recipe_file: Path, own_data: Path, tmp_path: Path
) -> None:
    (own_data / "train3.png").write_bytes(b"no image")
    arguments = (f"data.train.path={own_data / 'train.jsonl'}", "--only", "data")
    found = checked(recipe_file, tmp_path, *arguments, "data.on_bad_image=skip")
    (skipped,) = found["train"]["skipped"]
    assert skipped["id"] == "train3"
    assert "not an image" in skipped["reason"]
    assert skipped["path"] == str(own_data / "train3.png")
    assert "replace the file" in skipped["do"]
    assert any("1 unusable image, skipped" in warning for warning in found["warnings"])
    assert found["train"]["images"] == 23
    assert main([str(recipe_file), *arguments]) == 2


def test_preflight_does_not_validate_the_images_again(
    recipe_file: Path, own_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_data / "train3.png").write_bytes(b"no image")
    monkeypatch.setattr("qvft.setup.data.validate_images", lambda *_, **__: pytest.fail("again"))
    path = f"data.train.path={own_data / 'train.jsonl'}"
    found = checked(recipe_file, tmp_path, path, "data.on_bad_image=skip")
    assert found["train"]["images"] == 23
    assert all(one["passed"] for one in found["checks"])


def test_all_unreadable_images_are_listed_before_the_check_fails(
    recipe_file: Path, own_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for number in (3, 5):
        (own_data / f"train{number}.png").write_bytes(b"no image")
    (own_data / "train7.png").unlink()
    file = tmp_path / "findings.json"
    path = f"data.train.path={own_data / 'train.jsonl'}"
    assert main([str(recipe_file), path, "--json", str(file)]) == 2
    captured = capsys.readouterr()
    assert "2 x not an image" in captured.out
    assert "1 x no such file" in captured.out
    assert "3 images are unusable" in captured.err
    found = json.loads(file.read_text())
    assert [one["id"] for one in found["train"]["skipped"]] == ["train3", "train5", "train7"]
    assert found["checks"] == []
    assert not any(
        "image, skipped" in warning or "images, skipped" in warning for warning in found["warnings"]
    )


def test_a_changed_copy_of_a_test_image_is_found_in_the_training_data(
    recipe_file: Path, own_data: Path, tmp_path: Path
) -> None:
    rows = []
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 256, (12, 12), dtype=np.uint8)
        image = Image.fromarray(noise).resize((128, 128), Image.Resampling.BICUBIC)
        image.save(own_data / f"new{number}.png")
        image.crop((3, 3, 128, 128)).resize((96, 96)).save(own_data / f"new{number}.jpg")
        rows.append({"id": f"new{number}", "image": f"new{number}.png", "captions": ["noise"]})
    (own_data / "noise.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    copy = {"id": "copy", "image": "new1.jpg", "captions": ["noise"]}
    (own_data / "copies.jsonl").write_text(json.dumps(copy) + "\n")
    found = checked(
        recipe_file,
        tmp_path,
        f"data.train.path={own_data / 'noise.jsonl'}",
        f"data.eval.path={own_data / 'copies.jsonl'}",
        "--only",
        "data",
    )
    overlap = found["eval"]["quality"]["overlap"]
    assert overlap["exact"] == []
    assert [(pair["first"], pair["second"]) for pair in overlap["near"]] == [("copy", "new1")]
    assert any(
        "1 of 1 images of shapes-test look like one in noise" in warning
        and "copy like new1" in warning
        for warning in found["warnings"]
    )


def test_contradicting_questions_are_named_by_id_alone(
    recipe_file: Path, own_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    questions = [
        {"id": "q1", "question": "Any zebra?", "answers": ["perhaps"]},
        {"id": "q2", "question": "any Zebra", "answers": ["certainly"]},
    ]
    row = {"id": "late", "image": "train0.png", "questions": questions}
    plain = {"id": "first", "image": "train1.png", "captions": ["green"]}
    (own_data / "own.jsonl").write_text(
        "\n".join(
            [
                *[
                    json.dumps(plain | {"id": f"p{n}", "image": f"train{n + 1}.png"})
                    for n in range(3)
                ],
                json.dumps(row),
            ]
        )
        + "\n"
    )
    found = checked(
        recipe_file, tmp_path, f"data.train.path={own_data / 'own.jsonl'}", "--only", "data"
    )
    assert found["train"]["quality"]["repeats"]["contradictions"] == [["q1", "q2"]]
    (warning,) = [one for one in found["warnings"] if "answered otherwise" in one]
    assert "first q1, q2; decide on one answer (all in --json)" in warning
    assert not any("ebra" in one for one in found["warnings"])
    assert "ebra" not in json.dumps(found["train"]["quality"])


def test_answers_and_lengths_of_the_data_are_given(whole: dict[str, Any]) -> None:
    quality = whole["train"]["quality"]
    answers = quality["answers"]
    # 24 questions for a colour, 8 of each; 24 that are answered with yes (8) or no (16).
    assert (answers["count"], answers["distinct"], answers["yes_no_share"]) == (48, 5, 0.5)
    assert answers["common"][0] == {"answer": "no", "count": 16, "share": 16 / 48}
    assert quality["lengths"]["caption"]["words"] == [3] * 7
    assert whole["eval"]["quality"]["answers"]["unseen"] == 0
    assert quality["spelling"]["lost"] == []
    # The first eight images of the two splits are drawn alike, and so are their questions.
    assert len(whole["eval"]["quality"]["overlap"]["questions"]) == 16


def test_rows_that_are_cut_are_counted(recipe_file: Path, tmp_path: Path) -> None:
    found = checked(recipe_file, tmp_path, "--only", "data", "data.max_text_tokens=8")
    assert found["train"]["cut_rows"] == len(set(found["train"]["cut_ids"])) == 48
    cut = found["train"]["quality"]["cut"]
    assert (cut["question"]["row_share"], cut["caption"]["row_share"]) == (1, 0)
    assert cut["question"]["cut_tokens"] == found["train"]["cut_tokens"]
    assert cut["question"]["tokens"] - cut["question"]["cut_tokens"] == 48 * 6
    assert any("raise data.max_text_tokens" in warning for warning in found["warnings"])


def test_the_case_of_letters_in_a_name_is_asked_about(
    recipe_file: Path, own_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (own_data / "train3.png").rename(own_data / "Train3.PNG")
    arguments = (f"data.train.path={own_data / 'train.jsonl'}", "--only", "data")
    found = checked(recipe_file, tmp_path, *arguments, "data.on_bad_image=skip")
    assert "did you mean Train3.PNG?" in found["train"]["skipped"][0]["do"]
    assert "Train3.PNG?" in capsys.readouterr().out


def test_a_wrong_image_folder_is_named(
    recipe_file: Path, own_data: Path, capsys: pytest.CaptureFixture
) -> None:
    for image in own_data.glob("*.png"):
        image.unlink()
    path = f"data.train.path={own_data / 'train.jsonl'}"
    assert main([str(recipe_file), path, "--only", "data"]) == 2
    says = capsys.readouterr().err
    assert "24 x no such file" in says
    assert str(own_data / "train0.png") in says
    assert "check data.train.path and data.train.images" in says


def test_data_that_only_evaluation_reads_is_checked_before_training(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    retention = f"eval.retention=[{{path: {tmp_path / 'absent.jsonl'}}}]"
    assert main([str(recipe_file), retention, "--only", "data"]) == 2
    assert "eval.retention.0: " in capsys.readouterr().err


def test_reasons_that_differ_in_a_number_are_one(
    recipe_file: Path, own_data: Path, capsys: pytest.CaptureFixture
) -> None:
    for number in range(3):
        Image.new("RGB", (200 + number, 100)).save(own_data / f"train{number}.png")
    arguments = [f"data.train.path={own_data / 'train.jsonl'}", "data.max_image_pixels=9000"]
    assert main([str(recipe_file), "--only", "data", *arguments, "data.on_bad_image=skip"]) == 0
    shown = capsys.readouterr().out
    assert "3 x N x N pixels" in shown
    assert "expected at most 9000 in all" in shown


@pytest.mark.parametrize("option", ["--json", "--preview"])
@pytest.mark.parametrize("place", ["", "file/found"])
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_read(
    tmp_path: Path, option: str, place: str, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["no_such_recipe.yaml", option, str(tmp_path / place)]) == 2
    says = capsys.readouterr().err
    assert str(tmp_path / place) in says and ("is a folder" in says or "is a file" in says)
    assert len(says.splitlines()) == 1


def test_questions_about_near_copies_contradict_each_other(
    recipe_file: Path, own_data: Path, tmp_path: Path
) -> None:
    noise = np.random.default_rng(7).integers(0, 256, (12, 12), dtype=np.uint8)
    image = Image.fromarray(noise).resize((128, 128), Image.Resampling.BICUBIC)
    rows = []
    for name, answer in (("whole.png", "yes"), ("again.jpg", "no")):
        image.save(own_data / name)
        rows.append({"id": name, "image": name, "question": "Any?", "answer": answer})
    (own_data / "own.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    found = checked(
        recipe_file, tmp_path, f"data.train.path={own_data / 'own.jsonl'}", "--only", "data"
    )
    quality = found["train"]["quality"]
    assert len(quality["near_duplicates"]) == 1
    assert len(quality["repeats"]["contradictions"]) == 1
    assert any("1 pair of images look alike" in warning for warning in found["warnings"])


def test_a_folder_that_holds_another_run_is_a_warning(
    recipe_file: Path, tiny_run: Path, tmp_path: Path
) -> None:
    found = checked(recipe_file, tmp_path, f"run.dir={tiny_run}", "train.epochs=7")
    assert any("holds another recipe's run" in warning for warning in found["warnings"])


def test_a_failed_check_is_shown_written_and_ends_with_1(
    recipe_file: Path, own_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Trap 1: where all images are one, exchanging them cannot move the loss."""
    for image in own_data.glob("*.png"):
        Image.new("RGB", (40, 32), "grey").save(image)
    file = tmp_path / "findings.json"
    status = main(
        [str(recipe_file), f"data.train.path={own_data / 'train.jsonl'}", f"--json={file}"]
    )
    assert status == 1
    captured = capsys.readouterr()
    assert "FAILED" in captured.out
    assert "exchanging images moves the loss" in captured.err
    failed = [check for check in json.loads(file.read_text())["checks"] if not check["passed"]]
    assert len(failed) == 1


@pytest.mark.parametrize("target", ["q_poj", "query"])
def test_lora_targets_that_match_nothing_end_with_2(
    recipe_file: Path, target: str, capsys: pytest.CaptureFixture
) -> None:
    assert (
        main([str(recipe_file), "--only", "model", f"trainable.lora.target_modules=[{target}]"])
        == 2
    )
    assert "is not a linear layer of the decoder" in capsys.readouterr().err


def test_the_model_alone_gives_the_table_of_the_loaded_one(
    recipe_file: Path, tmp_path: Path, whole: dict[str, Any]
) -> None:
    found = checked(
        recipe_file, tmp_path, "--only", "model", "data.train.path=absent", "run.dir=nowhere"
    )
    (phase,), (loaded,) = found["phases"], whole["phases"]
    assert phase["components"] == loaded["components"]
    assert sorted(phase["lora_targets"]) == sorted(loaded["lora_targets"])
    assert found["train"] is None


def test_the_model_alone_is_refused_without_the_chat_template_that_is_asked_for(
    recipe_file: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main([str(recipe_file), "--only", "model", "data.prompt.chat_template=true"]) == 2
    assert "tokenizer has no chat template" in capsys.readouterr().err


@pytest.mark.parametrize("recipe", ["tiny", "vqa_v2"])
def test_the_model_alone_is_refused_rows_beyond_its_positions(
    recipe: str, recipe_file: Path, capsys: pytest.CaptureFixture
) -> None:
    file = recipe_file if recipe == "tiny" else PROJECT / "recipes" / f"{recipe}.yaml"
    assert main([str(file), "--only", "model", "data.max_text_tokens=2040"]) == 2
    assert "which is all that the decoder sees" in capsys.readouterr().err


def test_doras_magnitudes_are_counted_without_weights(recipe_file: Path, tmp_path: Path) -> None:
    def adapters(*overrides: str) -> int:
        found = checked(recipe_file, tmp_path, "--only", "model", *overrides)
        rows = found["phases"][0]["components"]
        return next(row["total"] for row in rows if row["component"] == "adapters")

    assert adapters("trainable.lora.use_dora=true") > adapters()


def test_each_phase_of_a_recipe_is_weighed(recipe_file: Path, tmp_path: Path) -> None:
    found = checked(
        recipe_file,
        tmp_path,
        "--only",
        "model",
        "phases=[{name: one, trainable: {decoder: frozen}}, {name: two}]",
        "phases.1.trainable.vision=full",
    )
    first, second = found["phases"]
    assert first["total"]["trainable"] < second["total"]["trainable"]
    assert (first["name"], second["name"]) == ("one", "two")
    assert first["lora_targets"] == []


def test_blip2_opt_27b_is_weighed_without_weights_or_network(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    found = checked(PROJECT / "recipes" / "medical_vqa.yaml", tmp_path, "--only", "model")
    (phase,) = found["phases"]
    totals = {row["component"]: row["total"] for row in phase["components"]}
    # ViT-g/14 and OPT-2.7B as published: 986 M and 2,652 M; Q-Former 105 M without a text branch.
    assert round(totals["vision"] / 1e6) == 986
    assert round(totals["decoder"] / 1e6) == 2652
    assert round(totals["qformer"] / 1e6) == 105
    assert totals["query_tokens"] == 32 * 768
    assert len(phase["lora_targets"]) == 32 * 6
    # r x (in + out): four projections of 2560 x 2560 and two of 2560 x 10240 in each block.
    assert totals["adapters"] == 32 * 16 * (4 * 2 * 2560 + 2 * (2560 + 10240))
    assert "LoRA on 192 layers" in capsys.readouterr().out


def test_an_encoder_decoder_is_counted_with_lora_in_both_stacks(tmp_path: Path) -> None:
    found = checked(
        PROJECT / "recipes" / "medical_vqa.yaml",
        tmp_path,
        "--only",
        "model",
        "model.id=Salesforce/blip2-flan-t5-xl",
        "trainable.lora.target_modules=[q,v]",
    )
    totals = {row["component"]: row["total"] for row in found["phases"][0]["components"]}
    # Flan-T5-XL has 2,849.8 M weights; transformers ties its head (65.8 M) to the embeddings.
    assert round(totals["decoder"] / 1e6) == 2784
    # Rank 16 on 2,048 wide q and v of 24 encoder blocks, and twice in each of 24 decoder blocks.
    assert totals["adapters"] == 16 * (2048 + 2048) * 2 * (24 + 2 * 24)
    assert found["warnings"] == []


def test_the_recipe_alone_needs_no_torch(recipe_file: Path) -> None:
    code = (
        "import sys; from qvft.check import main\n"
        f"status = main([{str(recipe_file)!r}, '--only', 'recipe'])\n"
        "sys.exit(status or 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "shapes" in done.stdout
