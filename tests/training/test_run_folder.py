"""Whole runs of a few steps: phases in order, what is kept at the end, what a resumed run does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from qvft.json_files import complete_lines
from qvft.recipe.load import load_recipe
from qvft.train import main
from qvft.training.run_folder import claimed_folder

BRIDGE = "bridge.safetensors"
ADAPTER = "adapter_model.safetensors"

# The first phase trains the projection, the second the query tokens and LoRA.
TWO_PHASES = [
    {
        "name": "first",
        "trainable": {"qformer": "frozen", "query_tokens": "frozen", "decoder": "frozen"},
        "train": {"max_steps": 2},
    },
    {
        "name": "second",
        "trainable": {"qformer": "frozen", "language_projection": "frozen"},
        "train": {"max_steps": 3},
    },
]


def train(recipe: Path, folder: Path, *overrides: str) -> Path:
    """The folder of a run; overrides are the same for a first start and for a resumed one."""
    assert main([str(recipe), f"run.dir={folder}", "train.resume=auto", *overrides]) == 0
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All that was trained, by file and name."""
    return {
        f"{file}:{name}": tensor
        for file in (BRIDGE, ADAPTER)
        if (folder / file).is_file()
        for name, tensor in load_file(folder / file).items()
    }


def assert_same_weights(one: Path, other: Path) -> None:
    """Bit-equal: the same operations in the same order, on one thread."""
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def cut(run: Path, folder: Path) -> Path:
    """A copy of a run that was stopped before its adapter was written."""
    shutil.copytree(run, folder)
    shutil.rmtree(folder / "adapter")
    return folder


def losses(run: Path, phase: str) -> list[int]:
    """The steps of a phase whose loss was logged."""
    rows = complete_lines(run / "metrics.jsonl")
    return [row["step"] for row in rows if row["phase"] == phase and "loss" in row]


@pytest.fixture(scope="module")
def phases() -> str:
    return f"phases={json.dumps(TWO_PHASES)}"


@pytest.fixture(scope="module")
def two_phases(recipe_file: Path, phases: str, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("phases") / "run"
    return train(recipe_file, folder, phases, "train.save_steps=null")


def test_a_claimed_folder_loses_what_a_killed_process_left(
    recipe_file: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(recipe_file, [f"run.dir={tmp_path}"])
    (tmp_path / "checkpoints" / "0").mkdir(parents=True)
    left = [tmp_path / ".metrics.jsonl.1.partial", tmp_path / "checkpoints/0/.done.json.1.partial"]
    for path in left:
        path.touch()
    with claimed_folder(recipe):
        assert not any(path.exists() for path in left)


def test_phases_are_trained_in_order_and_logged_by_name(two_phases: Path) -> None:
    rows = complete_lines(two_phases / "metrics.jsonl")
    order = [(row["phase"], row["step"]) for row in rows if "loss" in row]
    assert order == [("first", 1), ("first", 2), ("second", 1), ("second", 2), ("second", 3)]


def test_weights_of_every_phase_are_saved_at_the_end(two_phases: Path, tiny_folder: Path) -> None:
    base = load_file(tiny_folder / "model.safetensors")
    saved = load_file(two_phases / "adapter" / BRIDGE)
    assert set(saved) == {
        "query_tokens", "language_projection.weight", "language_projection.bias",
    }  # fmt: skip
    assert [name for name in saved if torch.equal(saved[name], base[name])] == []
    lora = load_file(two_phases / "adapter" / ADAPTER)
    assert any(tensor.any() for name, tensor in lora.items() if "lora_B" in name)


def test_a_frozen_phase_leaves_what_an_earlier_one_trained(two_phases: Path) -> None:
    kept = load_file(two_phases / "checkpoints" / "0" / "weights" / BRIDGE)
    final = load_file(two_phases / "adapter" / BRIDGE)
    name = "language_projection.weight"
    assert torch.equal(kept[name], final[name])


def test_a_done_phase_is_not_repeated(
    two_phases: Path, recipe_file: Path, phases: str, tmp_path: Path
) -> None:
    resumed = cut(two_phases, tmp_path / "run")
    before = [row for row in complete_lines(resumed / "metrics.jsonl") if row["phase"] == "first"]
    train(recipe_file, resumed, phases, "train.save_steps=null")
    after = [row for row in complete_lines(resumed / "metrics.jsonl") if row["phase"] == "first"]
    assert after == before  # the seconds too
    assert losses(resumed, "second") == [1, 2, 3]
    assert_same_weights(resumed / "adapter", two_phases / "adapter")


def test_a_run_stopped_after_its_last_checkpoint_takes_no_further_step(
    tiny_run: Path, recipe_file: Path, tmp_path: Path
) -> None:
    resumed = train(recipe_file, cut(tiny_run, tmp_path / "run"))
    assert losses(resumed, "train") == [1, 2, 3, 4, 5, 6]
    assert_same_weights(resumed / "adapter", tiny_run / "adapter")


KEEP_BEST = [
    "train.max_steps=20",
    "train.lr_scheduler_type=constant",
    "train.warmup_steps=0",
    "train.eval_steps=1",
    "train.save_steps=1",
    "train.save_total_limit=20",
    "train.load_best_model_at_end=true",
    "train.early_stopping_patience=2",
    "train.learning_rate=0.1",
]


@pytest.fixture(scope="module")
def foreign_eval(shapes: Path, tmp_path_factory) -> str:
    """Evaluation data whose words never stand in the training data: training unlearns them."""
    caption = "seven small triangles between nine large letters"
    rows = [{"image": f"test{i}.png", "caption": caption} for i in range(2)]
    path = tmp_path_factory.mktemp("foreign") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"data.eval={{path: '{path}', images: '{shapes}', name: shapes-test}}"


@pytest.fixture(scope="module")
def worsening(recipe_file: Path, foreign_eval: str, tmp_path_factory) -> Path:
    """A run whose evaluation loss soon rises."""
    folder = tmp_path_factory.mktemp("best") / "run"
    return train(recipe_file, folder, foreign_eval, *KEEP_BEST)


def eval_losses(run: Path) -> dict[int, float]:
    rows: list[dict[str, Any]] = complete_lines(run / "metrics.jsonl")
    return {row["step"]: row["eval_loss"] for row in rows if "eval_loss" in row}


def test_early_stopping_ends_after_so_many_evaluations_without_a_lower_loss(
    worsening: Path,
) -> None:
    found = eval_losses(worsening)
    best = min(found, key=found.__getitem__)
    assert max(found) == best + 2 < 20


def test_a_run_ends_with_the_checkpoint_of_the_lowest_eval_loss(worsening: Path) -> None:
    found = eval_losses(worsening)
    best, last = min(found, key=found.__getitem__), max(found)
    checkpoints = worsening / "checkpoints" / "0"
    assert_same_weights(worsening / "adapter", checkpoints / f"checkpoint-{best}")
    final, adapter = (weights(checkpoints / f"checkpoint-{last}"), weights(worsening / "adapter"))
    assert any(not torch.equal(final[name], adapter[name]) for name in adapter)


def test_a_run_that_stopped_early_is_not_trained_on_when_resumed(
    worsening: Path, recipe_file: Path, foreign_eval: str, tmp_path: Path
) -> None:
    resumed = cut(worsening, tmp_path / "run")
    train(recipe_file, resumed, foreign_eval, *KEEP_BEST)
    assert eval_losses(resumed) == eval_losses(worsening)
    assert_same_weights(resumed / "adapter", worsening / "adapter")
