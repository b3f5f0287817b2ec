"""Training on a stream goes on where it was, and broken records are named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tar_shards import png, write_shards, write_tar

from qvft.checking.check_run import check_run
from qvft.train import main


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 records of 60 texts: six steps of eight are in the first pass, none ends with it."""
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, [5, 4, 6, 5])
    return folder


def streamed(recipe_file: Path, shards: Path, run: Path, *overrides: str) -> list[str]:
    source = f"{{format: tar, path: '{shards}', stream: true, shuffle_buffer: 9}}"
    return [str(recipe_file), f"data.train={source}", f"run.dir={run}", *overrides]


@pytest.fixture(scope="module")
def run(shards: Path, recipe_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine steps over one pass and a fifth, with dropout."""
    folder = tmp_path_factory.mktemp("run") / "whole"
    changes = ["train.max_steps=9", "train.save_steps=4", "trainable.lora.lora_dropout=0.1"]
    assert main(streamed(recipe_file, shards, folder, *changes)) == 0
    return folder


# In the first pass, and in the second, with images decoded in workers.
@pytest.mark.parametrize(("step", "workers"), [(4, 0), (8, 2)])
def test_a_resumed_stream_ends_with_the_same_bytes(
    run: Path, shards: Path, recipe_file: Path, tmp_path: Path, step: int, workers: int
) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(run, cut)
    shutil.rmtree(cut / "adapter")
    for path in (cut / "checkpoints" / "0").glob("checkpoint-*"):
        if int(path.name.removeprefix("checkpoint-")) > step:
            shutil.rmtree(path)
    changes = ["train.max_steps=9", "train.save_steps=4", "trainable.lora.lora_dropout=0.1"]
    further = ["train.resume=auto", f"data.num_workers={workers}"]
    assert main(streamed(recipe_file, shards, cut, *changes, *further)) == 0
    for name in ("bridge.safetensors", "adapter_model.safetensors"):
        assert (cut / "adapter" / name).read_bytes() == (run / "adapter" / name).read_bytes()


def test_a_finished_run_knows_its_shards(run: Path) -> None:
    states = {one.what: one.state for one in check_run(run).verified}
    (of_data,) = [state for what, state in states.items() if what.startswith("data ")]
    assert of_data == "ok"


def test_a_stream_goes_on_among_as_many_processes_only(
    run: Path, shards: Path, recipe_file: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(run, cut)
    shutil.rmtree(cut / "adapter")
    monkeypatch.setenv("WORLD_SIZE", "2")
    changes = ["train.max_steps=9", "train.save_steps=4", "trainable.lora.lora_dropout=0.1"]
    further = [
        "train.resume=auto",
        "train.per_device_train_batch_size=4",
    ]  # as many texts a step as before
    assert main(streamed(recipe_file, shards, cut, *changes, *further)) == 2
    assert "divide the stream otherwise" in capsys.readouterr().err


def broken(folder: Path) -> Path:
    """Shards whose last has, behind whole records, an image cut off; 64 are looked at first."""
    write_shards(folder, [40, 40])
    half = png((9, 9, 9))[:60]
    write_tar(folder / "z.tar", {"bad.png": half, "bad.txt": b"a grey picture"})
    return folder


def test_a_broken_image_of_a_stream_stops_training_by_name(
    recipe_file: Path, tmp_path: Path, capsys
) -> None:
    given = streamed(recipe_file, broken(tmp_path / "s"), tmp_path / "run", "train.max_steps=40")
    assert main([*given, "data.train.texts=captions", "train.save_steps=null"]) == 2
    error = capsys.readouterr().err
    assert "z.tar, bad.png" in error
    assert "Traceback" not in error


def test_a_broken_image_of_a_stream_is_left_out_by_name(
    recipe_file: Path, tmp_path: Path, capsys
) -> None:
    given = streamed(recipe_file, broken(tmp_path / "s"), tmp_path / "run", "train.max_steps=11")
    skips = ["data.train.texts=captions", "train.save_steps=null", "data.on_bad_image=skip"]
    assert main([*given, *skips]) == 0
    (left_out,) = [one for one in capsys.readouterr().err.splitlines() if "1 so far" in one]
    assert "z.tar, bad.png" in left_out
