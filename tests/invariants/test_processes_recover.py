"""What goes wrong in one of two processes is known to both, and hangs neither."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file
from two_processes import HURT_STEP, HURT_STEPS, PLAIN, hurt

from qvft.json_files import complete_lines
from qvft.train import main


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_both(recipe_file: Path, tmp_path: Path) -> None:
    done = hurt("nan", recipe_file, tmp_path)
    assert done.returncode != 0
    # The main process says it, though its own samples are sound.
    assert done.stderr.count("the loss is nan at step 7; samples: train") == 1
    checkpoints = (tmp_path / "checkpoints" / "0").glob("checkpoint-*")
    assert sorted(path.name for path in checkpoints) == ["checkpoint-4", "checkpoint-6"]


@pytest.mark.slow
def test_a_spike_is_left_out_by_both(recipe_file: Path, tmp_path: Path) -> None:
    done = hurt("spike", recipe_file, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = complete_lines(tmp_path / "metrics.jsonl")
    ((step, spike),) = [(row["step"], row["spike"]) for row in rows if "spike" in row]
    assert step == HURT_STEP
    assert len(spike["samples"]) == 8  # of both processes
    assert (tmp_path / "adapter" / "manifest.json").is_file()


@pytest.mark.slow
def test_memory_that_ran_out_in_one_halves_the_batches_of_both(
    recipe_file: Path, tmp_path: Path
) -> None:
    done = hurt("memory", recipe_file, tmp_path / "two", *PLAIN, rows=2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("memory ran out at step 7") == 1
    assert "with a batch of 4 texts: batches are split into 2 parts" in done.stderr
    rows = complete_lines(tmp_path / "two" / "metrics.jsonl")
    events = [(row["step"], row["out_of_memory"]) for row in rows if "out_of_memory" in row]
    smaller = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    assert events == [(HURT_STEP, smaller)]

    one = [
        "train.per_device_train_batch_size=8",
        *HURT_STEPS,
        *PLAIN,
        f"run.dir={tmp_path / 'one'}",
    ]
    assert main([str(recipe_file), *one]) == 0
    for file in ("bridge.safetensors", "adapter_model.safetensors"):
        alone, both = (load_file(tmp_path / run / "adapter" / file) for run in ("one", "two"))
        for key, expected in alone.items():
            # Float32 sums in another order, over nine steps of a gradient clipped to 1, of 0.05.
            assert (expected - both[key]).abs().max() < 2e-6, key


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "variables", "said"),
    [
        ("memory", {}, "with 1 texts at once"),
        (
            "forward",
            {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"},
            "set train.per_device_train_batch_size=2 train.gradient_accumulation_steps=2",
        ),
    ],
)
def test_memory_that_cannot_be_found_is_said_and_ends_both(
    recipe_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    variables: dict[str, str],
    said: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = hurt(kind, recipe_file, tmp_path)
    assert done.returncode != 0
    assert "memory ran out at step 7" in done.stderr and said in done.stderr
