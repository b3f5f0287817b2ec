"""A run that is stopped and goes on ends where an undisturbed one ends."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from qvft.train import main


def cut_short(run: Path, folder: Path) -> Path:
    """A copy of a run that has not written its adapter yet."""
    cut = folder / "cut"
    shutil.copytree(run, cut)
    shutil.rmtree(cut / "adapter")
    return cut


def test_resumed_run_ends_with_the_weights_of_an_undisturbed_one(
    tiny_run: Path, recipe_file: Path, tmp_path: Path
) -> None:
    cut = cut_short(tiny_run, tmp_path)
    shutil.rmtree(cut / "checkpoints" / "0" / "checkpoint-6")

    assert main([str(recipe_file), f"run.dir={cut}", "train.resume=auto"]) == 0

    for file in ("bridge.safetensors", "adapter_model.safetensors"):
        whole, resumed = load_file(tiny_run / "adapter" / file), load_file(cut / "adapter" / file)
        assert whole.keys() == resumed.keys()
        for key in whole:
            # Bit-equal: same data order, same random state, one thread.
            assert (whole[key] == resumed[key]).all(), key


def test_metrics_of_a_resumed_run_name_each_step_once(
    tiny_run: Path, recipe_file: Path, tmp_path: Path
) -> None:
    cut = cut_short(tiny_run, tmp_path)
    shutil.rmtree(cut / "checkpoints" / "0" / "checkpoint-6")
    assert main([str(recipe_file), f"run.dir={cut}", "train.resume=auto"]) == 0
    rows = [json.loads(line) for line in (cut / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5, 6]


def test_finished_run_is_left_as_it_is(
    tiny_run: Path, recipe_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (tiny_run / "adapter" / "manifest.json").stat().st_mtime_ns
    assert main([str(recipe_file), f"run.dir={tiny_run}", "train.resume=auto"]) == 0
    assert (tiny_run / "adapter" / "manifest.json").stat().st_mtime_ns == before


def test_run_folder_is_not_trained_into_twice_without_being_asked(
    tiny_run: Path, recipe_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(recipe_file), f"run.dir={tiny_run}"]) == 2
    assert "train.resume=auto" in capsys.readouterr().err


def test_run_folder_of_another_recipe_is_refused(
    tiny_run: Path, recipe_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main([str(recipe_file), f"run.dir={tiny_run}", "train.max_steps=7"])
    assert status == 2
    said = capsys.readouterr().err
    assert "another recipe's run: train.max_steps is 6 there and 7 here" in said


def test_a_checkpoint_cut_off_while_written_falls_back_to_the_one_before(
    tiny_run: Path, recipe_file: Path, tmp_path: Path
) -> None:
    cut = cut_short(tiny_run, tmp_path)
    (cut / "checkpoints" / "0" / "checkpoint-6" / "trainer_state.json").unlink()
    assert main([str(recipe_file), f"run.dir={cut}", "train.resume=auto"]) == 0
    whole = load_file(tiny_run / "adapter" / "bridge.safetensors")
    resumed = load_file(cut / "adapter" / "bridge.safetensors")
    assert all((whole[key] == resumed[key]).all() for key in whole)


def test_an_attempt_without_a_checkpoint_does_not_block_its_folder(
    tiny_run: Path, recipe_file: Path, tmp_path: Path
) -> None:
    failed = tmp_path / "failed"
    failed.mkdir()
    shutil.copy(tiny_run / "recipe.lock.yaml", failed)
    changed = ["train.per_device_train_batch_size=4", "train.max_steps=1", "train.save_steps=null"]
    assert main([str(recipe_file), f"run.dir={failed}", *changed]) == 0
    assert "per_device_train_batch_size: 4" in (failed / "recipe.lock.yaml").read_text()
