"""What wrong input gets: one message, exit status 2, nothing half-written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from qvft import check, files, train
from qvft import eval as evaluation

Broken = Callable[[Path], list[str]]


@pytest.fixture
def data(shapes: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    shutil.copytree(shapes, folder)
    return folder


def rewrite(folder: Path, change: Callable[[dict], dict]) -> None:
    path = folder / "train.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[2] = change(rows[2])
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def refused(recipe: Path, data: Path, run: Path, capsys, *overrides: str) -> str:
    """The message that training ends with; checks status, form and that no run was begun."""
    status = train.main(
        [str(recipe), f"data.train.path={data / 'train.jsonl'}", f"run.dir={run}", *overrides]
    )
    message = capsys.readouterr().err
    assert status == 2
    assert "Traceback" not in message
    assert len([line for line in message.splitlines() if line.startswith("qvft: ")]) == 1
    assert not run.exists()
    return message


def test_unknown_key_names_the_nearest(recipe_file, data, tmp_path, capsys) -> None:
    message = refused(recipe_file, data, tmp_path / "run", capsys, "train.epoch=3")
    assert 'did you mean "epochs"?' in message


def test_ill_typed_key_names_its_path(recipe_file, data, tmp_path, capsys) -> None:
    message = refused(
        recipe_file, data, tmp_path / "run", capsys, "train.learning_rate.qformer=fast"
    )
    assert "train.learning_rate.qformer" in message


def test_missing_data_file_is_named(recipe_file, data, tmp_path, capsys) -> None:
    (data / "train.jsonl").unlink()
    assert "train.jsonl" in refused(recipe_file, data, tmp_path / "run", capsys)


def test_broken_row_is_named_by_file_and_line(recipe_file, data, tmp_path, capsys) -> None:
    path = data / "train.jsonl"
    lines = path.read_text().splitlines()
    lines[4] = lines[4][:-3]
    path.write_text("\n".join(lines))
    assert "train.jsonl:5" in refused(recipe_file, data, tmp_path / "run", capsys)


def test_empty_answer_is_named_by_line(recipe_file, data, tmp_path, capsys) -> None:
    rewrite(data, lambda row: {**row, "questions": [{"question": "Why?", "answers": [" "]}]})
    assert "train.jsonl:3" in refused(recipe_file, data, tmp_path / "run", capsys)


def test_missing_image_is_named(recipe_file, data, tmp_path, capsys) -> None:
    (data / "train3.png").unlink()
    assert "train3.png" in refused(recipe_file, data, tmp_path / "run", capsys)


def test_truncated_image_is_named(recipe_file, data, tmp_path, capsys) -> None:
    path = data / "train3.png"
    path.write_bytes(path.read_bytes()[:60])
    assert "train3.png" in refused(recipe_file, data, tmp_path / "run", capsys)


@pytest.mark.parametrize("program", [train, check])
def test_a_misspelt_lora_target_is_refused_before_images_are_read(
    program: ModuleType, recipe_file, data, tmp_path, capsys
) -> None:
    for image in data.glob("*.png"):
        image.write_bytes(image.read_bytes()[:60])
    paths = [f"data.train.path={data / 'train.jsonl'}", f"run.dir={tmp_path / 'run'}"]
    target = "trainable.lora.target_modules=[q_prj]"
    assert program.main([str(recipe_file), *paths, target]) == 2
    assert '"q_prj" is not a linear layer of the decoder' in capsys.readouterr().err


def test_decompression_bomb_is_refused(recipe_file, data, tmp_path, capsys) -> None:
    message = refused(recipe_file, data, tmp_path / "run", capsys, "data.max_image_pixels=100")
    assert "data.max_image_pixels" in message


def test_skipped_images_are_counted_and_listed(tiny_run: Path, shapes: Path, tmp_path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(shapes, folder)
    (folder / "test3.png").write_bytes(b"not an image")
    path = f"data.eval.path={folder / 'test.jsonl'}"
    out = tmp_path / "report"
    status = evaluation.main([str(tiny_run), path, "data.on_bad_image=skip", "--out", str(out)])
    assert status == 0
    report = json.loads((out / "report.json").read_text())
    assert report["counts"]["images_skipped"] == 1
    assert [entry["id"] for entry in report["skipped"]] == ["test3"]
    assert report["n"] == 7 * 3


def test_unknown_model_says_what_to_do_offline(recipe_file, data, tmp_path, capsys) -> None:
    message = refused(recipe_file, data, tmp_path / "run", capsys, "model.id=nobody/nothing")
    assert "hf download nobody/nothing" in message
    assert "qvft/tiny-blip2" in message


def test_base_that_differs_from_the_trained_one_is_refused(
    tiny_run: Path, tiny_folder: Path, tmp_path, capsys
) -> None:
    from safetensors.torch import load_file, save_file

    other = tmp_path / "other"
    shutil.copytree(tiny_folder, other)
    weights = load_file(other / "model.safetensors")
    weights["language_projection.bias"] += 1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    assert evaluation.main([str(tiny_run), f"model.id={other}"]) == 2
    assert "expected the base it was trained on" in capsys.readouterr().err


def test_unfinished_run_says_how_to_go_on(tiny_run: Path, tmp_path, capsys) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(tiny_run, cut)
    shutil.rmtree(cut / "adapter")
    assert evaluation.main([str(cut)]) == 2
    assert "train.resume=auto" in capsys.readouterr().err


def test_full_disk_is_said_before_training(
    recipe_file, data, tmp_path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil._ntuple_diskusage(total=10**9, used=10**9 - 10, free=10)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: usage)
    message = refused(recipe_file, data, tmp_path / "run", capsys)
    assert "free some room" in message
