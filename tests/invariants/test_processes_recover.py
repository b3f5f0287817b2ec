"""What goes wrong in one of two processes is known to both, and hangs neither."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qvft.training.metrics_log import read_metrics

HURT = Path(__file__).with_name("hurt.py")
STEP = 7


def two(kind: str, recipe: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Trains in two processes, of which the second has something wrong in step `STEP`."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    command += ["--master_port=0", "--rdzv_backend=c10d", "--rdzv_endpoint=localhost:0"]
    command += [str(HURT), kind, str(recipe), f"run.dir={folder}", "train.batch_size=4"]
    command += ["train.max_steps=9", "train.spike={policy: skip, window: 8}"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_both(recipe_file: Path, tmp_path: Path) -> None:
    done = two("nan", recipe_file, tmp_path)
    assert done.returncode != 0
    # The main process says it, though its own samples are sound.
    assert done.stderr.count("the loss is nan at step 7; samples: train") == 1
    checkpoints = (tmp_path / "checkpoints" / "0").glob("checkpoint-*")
    assert sorted(path.name for path in checkpoints) == ["checkpoint-4", "checkpoint-6"]


@pytest.mark.slow
def test_a_spike_is_left_out_by_both(recipe_file: Path, tmp_path: Path) -> None:
    done = two("spike", recipe_file, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = read_metrics(tmp_path / "metrics.jsonl")
    ((step, spike),) = [(row["step"], row["spike"]) for row in rows if "spike" in row]
    assert step == STEP
    assert len(spike["samples"]) == 8  # of both processes
    assert (tmp_path / "adapter" / "manifest.json").is_file()


@pytest.mark.slow
def test_memory_that_ran_out_in_one_is_said_and_ends_both(
    recipe_file: Path, tmp_path: Path
) -> None:
    done = two("memory", recipe_file, tmp_path)
    assert done.returncode != 0
    assert "memory ran out at step 7 with 4 texts at once" in done.stderr
    assert "set train.batch_size=2 train.accumulation=2" in done.stderr
