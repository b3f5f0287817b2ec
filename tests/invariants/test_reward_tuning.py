"""Reward tuning in whole runs: a reward rises, a resumed run ends alike, memory that runs out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from qvft.errors import RecipeError
from qvft.recipe.load import load_recipe
from qvft.recipe.phases import phase_plans
from qvft.setup.model import base_of
from qvft.train import main
from qvft.training.distributed.fsdp import require_shardable
from qvft.training.objectives.reward import RewardObjective
from qvft.training.stopping import StopOnSignal

FUNCTIONS = "tests.training.rewards.functions"
PHASE = "phases=[{name: reward, objective: reward}]"
STEPS = ["train.max_steps=8", "train.save_steps=4", "train.eval_steps=4"]


def reward(name: str, further: str = "") -> str:
    return f"reward={{funcs: {{{FUNCTIONS}.{name}: 1.0}}, {further}}}"


def rows_of(run: Path, key: str) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if key in row]


def contents(run: Path) -> list[bytes]:
    names = ("adapter_model.safetensors", "bridge.safetensors")
    return [(run / "adapter" / name).read_bytes() for name in names]


@pytest.fixture(scope="module")
def drawn_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model on captions of drawn scenes."""
    path = tmp_path_factory.mktemp("recipe") / "drawn.yaml"
    path.write_text(
        """
name: drawn
model: {id: qvft/tiny-blip2}
data:
  train: {format: drawn, path: "seed=1,count=24", texts: captions}
  eval: {format: drawn, path: "seed=2,count=12", texts: captions}
  num_workers: 0
trainable: {lora: {r: 4, lora_alpha: 8}}
phases: [{name: reward, objective: reward}]
train: {per_device_train_batch_size: 8, learning_rate: 3.0e-3, logging_steps: 1,
  lr_scheduler_type: constant}
run: {threads: 1}
"""
    )
    return path


def test_a_reward_rises_and_the_best_checkpoint_is_kept(drawn_recipe: Path, tmp_path: Path) -> None:
    given = [
        str(drawn_recipe),
        f"run.dir={tmp_path}",
        reward("prefers_the", "num_generations: 6, beta: 0.01"),
    ]
    steps = ["train.max_steps=18", "train.eval_steps=6", "train.load_best_model_at_end=true"]
    assert main([*given, *steps]) == 0
    rewards = [row["reward"] for row in rows_of(tmp_path, "reward")]
    assert len(rewards) == 18
    assert sum(rewards[-6:]) / 6 > sum(rewards[:6]) / 6 + 0.25
    logged = rows_of(tmp_path, "reward")[-1]
    assert {
        "kl", "frac_reward_zero_std", "reward_group_std", "letters", "completions/bad_endings",
        "completions/distinct_2", "completions/mean_length", "completions/clipped_ratio",
    } <= logged.keys()  # fmt: skip
    held_out = [row["eval_held_out"] for row in rows_of(tmp_path, "eval_held_out")]
    assert len(held_out) == 3 and max(held_out) > 0.9


def test_a_held_out_metric_that_falls_ends_the_phase_with_its_best_checkpoint(
    recipe_file: Path, tmp_path: Path
) -> None:
    section = reward("remainder", f"metric: {FUNCTIONS}.falls")
    given = [str(recipe_file), f"run.dir={tmp_path}", PHASE, section, "train.max_steps=9"]
    every = ["train.eval_steps=1", "train.save_steps=1", "train.load_best_model_at_end=true"]
    assert main([*given, *every, "train.early_stopping_patience=2"]) == 0
    held_out = [row["eval_held_out"] for row in rows_of(tmp_path, "eval_held_out")]
    assert len(held_out) == 3 and held_out == sorted(held_out, reverse=True)
    (kept,) = (tmp_path / "checkpoints" / "0").glob("checkpoint-1")
    assert (kept / "bridge.safetensors").read_bytes() == contents(tmp_path)[1]


@pytest.fixture(scope="module")
def run(recipe_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "reward"
    given = [str(recipe_file), PHASE, reward("remainder", "num_iterations: 2"), *STEPS]
    assert main([*given, f"run.dir={folder}"]) == 0
    return folder


def test_a_resumed_run_ends_bit_equal(run: Path, recipe_file: Path, tmp_path: Path) -> None:
    cut = shutil.copytree(run, tmp_path / "cut")
    shutil.rmtree(cut / "adapter")
    shutil.rmtree(cut / "checkpoints" / "0" / "checkpoint-8")
    given = [str(recipe_file), PHASE, reward("remainder", "num_iterations: 2"), *STEPS]
    assert main([*given, f"run.dir={cut}", "train.resume=auto"]) == 0
    assert contents(cut) == contents(run)
    logged = [rows_of(folder, "kl")[-1]["kl"] for folder in (run, cut)]
    assert logged[0] == logged[1] != 0


def test_updates_of_a_generation_move_the_ratio_and_log_their_samples_once(run: Path) -> None:
    steps = [row["step"] for row in rows_of(run, "reward")]
    assert steps == [1, 3, 5, 7]
    assert [row["step"] for row in rows_of(run, "loss_reward")] == list(range(1, 9))
    losses = [row["loss_reward"] for row in rows_of(run, "loss_reward")]
    # Leave-one-out advantages add up to 0 while all ratios are 1.
    assert all(abs(loss) < 1e-5 for loss in losses[0::2])
    assert any(abs(loss) > 1e-4 for loss in losses[1::2])


def test_a_signal_stops_where_the_samples_of_a_generation_end() -> None:
    class Arguments:
        world_size = 1

    class Step:
        def __init__(self, step: int) -> None:
            self.global_step, self.should_save = step, False

    stop = StopOnSignal()
    stop.steps, stop._number = 2, 15
    asked = []
    for number in (1, 2, 3):
        step = Step(number)
        stop.on_step_end(Arguments(), step, step)
        asked.append(step.should_save)
    assert asked == [False, True, False]


def test_a_batch_that_does_not_fit_is_halved_without_new_samples(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [str(recipe_file), PHASE, reward("remainder"), "train.max_steps=2"]
    given += ["train.save_steps=null", "train.preflight=false"]
    assert main([*given, f"run.dir={tmp_path / 'whole'}"]) == 0
    forward = RewardObjective.forward

    def small(self: RewardObjective, **batch: Tensor) -> dict[str, Any]:
        if len(batch["labels"]) > 9:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, **batch)

    monkeypatch.setattr(RewardObjective, "forward", small)
    assert main([*given, f"run.dir={tmp_path / 'halved'}"]) == 0
    assert rows_of(tmp_path / "halved", "out_of_memory")
    norms = [
        [row["grad_norm"] for row in rows_of(tmp_path / name, "grad_norm")]
        for name in ("whole", "halved")
    ]
    # float32 sums of 16 texts in another order.
    assert norms[1] == pytest.approx(norms[0], rel=1e-4)


def test_a_function_that_is_no_reward_is_refused_before_training(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(recipe_file), f"run.dir={tmp_path / 'run'}", PHASE, reward("raises")]) == 2
    error = capsys.readouterr().err
    assert f"reward.funcs.{FUNCTIONS}.raises: raised KeyError" in error
    assert "Traceback" not in error
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_data_with_texts_that_no_function_scores_is_refused(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(recipe_file), f"run.dir={tmp_path / 'run'}", PHASE]
    assert main([*given, "reward={funcs: {cider: 1.0}}"]) == 2
    assert "reward.funcs: no function scores the questions of data.train" in capsys.readouterr().err


def test_fsdp_is_refused(recipe_file: Path) -> None:
    recipe = load_recipe(recipe_file, [PHASE, reward("remainder")])
    with pytest.raises(RecipeError, match="phases.0.objective: reward under FSDP"):
        require_shardable(base_of(recipe), (), phase_plans(recipe))
