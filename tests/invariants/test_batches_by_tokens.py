"""Batches by tokens with augmented views: one process or two, at once or in parts, are one run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from qvft.json_files import complete_lines
from qvft.train import main

FILES = ("bridge.safetensors", "adapter_model.safetensors")
GIVEN = [
    "train.batch_tokens=180",
    "train.texts_per_image=2",
    "data.augmentations_per_image=2",
    "train.max_steps=-1",
    "data.train.limit=12",
]


@pytest.mark.slow  # tests of the sampler hold how accelerate divides its batches
def test_two_processes_equal_one(recipe_file: Path, tmp_path: Path) -> None:
    """Two batches of a step are one process's in turn, or one of each process."""
    one, two = tmp_path / "one", tmp_path / "two"
    steps = [*GIVEN, "train.epochs=1", "train.save_steps=null"]
    assert (
        main([str(recipe_file), f"run.dir={one}", *steps, "train.gradient_accumulation_steps=2"])
        == 0
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    command += ["--master_port=0", "--rdzv_backend=c10d", "--rdzv_endpoint=localhost:0"]
    command += ["-m", "qvft.train", str(recipe_file), f"run.dir={two}"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*command, *steps], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    taken = max(row["step"] for row in complete_lines(two / "metrics.jsonl"))
    assert taken == max(row["step"] for row in complete_lines(one / "metrics.jsonl"))
    for file in FILES:
        alone, both = load_file(one / "adapter" / file), load_file(two / "adapter" / file)
        assert alone.keys() == both.keys()
        for key in alone:
            # As in test_processes: gradients are summed in another order, and a step of AdamW
            # moves a weight by the learning rate, 1e-3, one way or the other however small its
            # gradient.
            difference = (alone[key] - both[key]).abs()
            assert difference.median() < 1e-6, key
            assert difference.max() < 2.05e-3 * taken, key


def test_a_run_stopped_within_a_later_epoch_ends_byte_for_byte_as_an_undisturbed_one(
    recipe_file: Path, tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    given = [*GIVEN, "train.epochs=3", "train.gradient_accumulation_steps=2", "train.save_steps=1"]
    given += ["train.save_total_limit=100", "train.resume=auto"]
    assert main([str(recipe_file), f"run.dir={whole}", *given]) == 0
    shutil.copytree(whole, parts)
    shutil.rmtree(parts / "adapter")
    checkpoints = sorted(
        (parts / "checkpoints" / "0").iterdir(), key=lambda path: int(path.name.split("-")[1])
    )
    steps = len(checkpoints) // 3
    assert steps >= 2 and len(checkpoints) == 3 * steps
    for later in checkpoints[steps + 1 :]:  # the first step of the second epoch is the last left
        shutil.rmtree(later)
    assert main([str(recipe_file), f"run.dir={parts}", *given]) == 0
    for file in FILES:
        expected, found = ((run / "adapter" / file).read_bytes() for run in (whole, parts))
        assert found == expected, file
