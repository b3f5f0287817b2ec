"""A run with everything that has a state, cut after any step, ends byte by byte as undisturbed.

Two phases, accumulation over batches that do not divide an epoch, dropout in LoRA and decoder,
decoding workers, evaluation with its best checkpoint and early stopping.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from qvft.files import sha256_file
from qvft.json_files import complete_lines
from qvft.train import main

# 72 texts: 18 batches of 4, 9 steps of 2 batches an epoch.
STATEFUL = [
    "trainable.lora={r: 4, lora_alpha: 8, lora_dropout: 0.1}",
    "trainable.decoder_dropout=0.1",
    "train.per_device_train_batch_size=4",
    "train.gradient_accumulation_steps=2",
    "train.eval_steps=1",
    "train.save_steps=1",
    "train.save_total_limit=20",
    "train.load_best_model_at_end=true",
    "train.early_stopping_patience=2",
    "train.max_steps=20",
    "train.lr_scheduler_type=constant",
    "train.warmup_steps=0",
    "train.learning_rate=0.1",
    "data.num_workers=1",
    "phases="
    + json.dumps(
        [
            {"name": "first", "trainable": {"decoder": "frozen"}, "train": {"max_steps": 2}},
            {"name": "second"},
        ]
    ),
]


@pytest.fixture(scope="module")
def foreign_eval(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Evaluation data whose words never stand in the training data: training unlearns them."""
    caption = "seven small triangles between nine large letters"
    rows = [{"image": str(shapes / f"test{i}.png"), "caption": caption} for i in range(2)]
    path = tmp_path_factory.mktemp("foreign") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"data.eval={json.dumps({'path': str(path), 'allow_paths_outside_root': True})}"


def train(recipe: Path, folder: Path, data: str) -> Path:
    given = [f"run.dir={folder}", "train.resume=auto", data]
    assert main([str(recipe), *given, *STATEFUL]) == 0
    return folder


def outcome(run: Path) -> dict[str, Any]:
    """All that a run leaves and that must not depend on stops, but for paths and times."""
    timed = {"seconds", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second"}
    rows = [
        {key: value for key, value in row.items() if key not in timed}
        for row in complete_lines(run / "metrics.jsonl")
        if "train_runtime" not in row
    ]
    return {
        "adapter": {path.name: sha256_file(path) for path in (run / "adapter").iterdir()},
        "metrics": rows,
        "hidden": [path.name for path in run.rglob(".*")],
    }


@pytest.fixture(scope="module")
def whole(recipe_file: Path, foreign_eval: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(recipe_file, tmp_path_factory.mktemp("whole") / "run", foreign_eval)


def cut(run: Path, folder: Path, phase: int, step: int) -> Path:
    """A copy of a run, in another place, as it was after a step of a phase."""
    shutil.copytree(run, folder)
    shutil.rmtree(folder / "adapter")
    for index in range(phase, 2):
        place = folder / "checkpoints" / f"{index}"
        (place / "done.json").unlink(missing_ok=True)
        shutil.rmtree(place / "weights", ignore_errors=True)
        for path in place.glob("checkpoint-*"):
            if index > phase or int(path.name.rpartition("-")[2]) > step:
                shutil.rmtree(path)
    return folder


def test_the_undisturbed_run_stops_early(whole: Path) -> None:
    steps = [row["step"] for row in complete_lines(whole / "metrics.jsonl") if "loss" in row]
    assert 3 <= max(steps) < 20
    assert steps == [1, 2, *range(1, max(steps) + 1)]


@pytest.mark.parametrize(
    ("phase", "step"),
    [(1, 2), *(pytest.param(0, step, marks=pytest.mark.slow) for step in (1, 2))],
)
def test_a_run_cut_after_any_step_and_moved_ends_as_undisturbed(
    phase: int, step: int, whole: Path, recipe_file: Path, foreign_eval: str, tmp_path: Path
) -> None:
    moved = cut(whole, tmp_path / "moved", phase, step)
    expected = outcome(whole)
    shutil.move(whole, tmp_path / "away")  # the best checkpoint is not to be found there
    try:
        assert outcome(train(recipe_file, moved, foreign_eval)) == expected
    finally:
        shutil.move(tmp_path / "away", whole)
