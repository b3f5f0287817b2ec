"""Two processes that deal out moments by DeepSpeed's ZeRO train what one process does."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from two_processes import (
    ALIGNMENT_PARTS,
    HURT_STEP,
    PHASES,
    PLAIN,
    SMOOTH,
    UNEVEN,
    Program,
    hurt,
    launched,
    under_two,
)

from qvft.json_files import complete_lines
from qvft.train import main as train

pytestmark = pytest.mark.skipif(
    find_spec("deepspeed") is None,
    reason="DeepSpeed is not installed (pip install 'qvft[zero]')",
)


def zero(stage: int) -> dict[str, str]:
    """What `accelerate launch` sets for a stage of ZeRO."""
    return {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": str(stage)}


# Each recipe: what is added to the text, what is changed, and the stage.
RECIPES: dict[str, tuple[str, list[str], int]] = {
    "adamw": ("", ["train.save_steps=3", *SMOOTH], 2),
    "clipped": ("", ["train.max_grad_norm=0.01", "train.eval_steps=4"], 1),
    "phases": (PHASES, ["data.features=off"], 1),
    "aligned": (ALIGNMENT_PARTS, [], 2),
    "nf4": ("", ["model.quantization.load_in_4bit=true", "train.texts_per_image=3"], 2),
}


@dataclass(frozen=True)
class Pair:
    """What one process and two wrote of the same recipes, in folders of equal names."""

    one: Path
    two: Path

    def given(self, name: str) -> list[str]:
        """A recipe with what is changed in it."""
        return [str(self.one.parent / f"{name}.yaml"), *PLAIN, *UNEVEN, *RECIPES[name][1]]


@pytest.fixture(scope="module")
def pair(recipe_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    root = tmp_path_factory.mktemp("zero")
    found = Pair(root / "one", root / "two")
    programs: list[Program] = []
    for name, (text, _, stage) in RECIPES.items():
        (root / f"{name}.yaml").write_text(recipe_file.read_text() + text)
        given = found.given(name)
        assert (
            train([*given, f"run.dir={found.one / name}", "train.per_device_train_batch_size=14"])
            == 0
        )
        halves = [*given, f"run.dir={found.two / name}", "train.per_device_train_batch_size=7"]
        programs.append(("train", halves, zero(stage)))
    launched(programs, root / "cache")
    return found


def weights(run: Path) -> dict[str, torch.Tensor]:
    files = sorted((run / "adapter").glob("*.safetensors"))
    return {
        f"{file.stem}/{key}": tensor for file in files for key, tensor in load_file(file).items()
    }


def require_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys() != set()
    for key, tensor in first.items():
        # As in test_processes.py: float32 sums in another order, over six steps.
        assert (tensor - second[key]).abs().max() < 1e-6, key


@pytest.mark.parametrize("name", RECIPES)
def test_two_processes_end_with_the_weights_and_losses_of_one(pair: Pair, name: str) -> None:
    require_equal(weights(pair.one / name), weights(pair.two / name))
    rows = [complete_lines(side / name / "metrics.jsonl") for side in (pair.one, pair.two)]
    named = {"loss", "grad_norm", "eval_token_loss", "loss_itc", "loss_itm", "loss_itg"}
    for alone, both in zip(*rows, strict=True):
        assert alone.keys() == both.keys()
        for key in named & alone.keys():
            # Of the norm torch sums squares in float32, where a large table's round to 1.4e-5 of
            # it; DeepSpeed sums them in float64.
            rounding = 1e-4 if key == "grad_norm" else 1e-5
            assert both[key] == pytest.approx(alone[key], rel=rounding), key


def test_a_checkpoint_has_the_moments_of_one_process(pair: Pair) -> None:
    files = [
        side / "adamw/checkpoints/0/checkpoint-3/optimizer.pt" for side in (pair.one, pair.two)
    ]
    alone, both = (torch.load(file, weights_only=True) for file in files)
    assert alone["param_groups"] == both["param_groups"]
    assert alone["state"].keys() == both["state"].keys() != set()
    for number, moments in alone["state"].items():
        assert moments.keys() == both["state"][number].keys()
        for name, value in moments.items():
            # Moments of gradients no larger than 1, whose float32 sums were taken in another order.
            assert (value - both["state"][number][name]).abs().max() < 1e-6, name


def test_a_run_goes_on_with_zero_and_without(pair: Pair, tmp_path: Path) -> None:
    runs = [Path(shutil.copytree(pair.two / "adamw", tmp_path / name)) for name in ("one", "two")]
    for run in runs:
        shutil.rmtree(run / "adapter")
        shutil.rmtree(run / "checkpoints/0/checkpoint-6")
    given = [*pair.given("adamw"), "train.resume=auto", "train.per_device_train_batch_size=7"]
    assert train([*given, "train.gradient_accumulation_steps=2", f"run.dir={runs[0]}"]) == 0
    launched([("train", [*given, f"run.dir={runs[1]}"], zero(2))], tmp_path / "cache")
    for run in runs:
        require_equal(weights(pair.one / "adamw"), weights(run))


def test_batches_may_be_summed_up(pair: Pair, tmp_path: Path) -> None:
    given = [*pair.given("adamw"), "train.max_steps=3"]
    assert train([*given, "train.per_device_train_batch_size=16", f"run.dir={tmp_path}/one"]) == 0
    parts = [
        *given,
        "train.per_device_train_batch_size=4",
        "train.gradient_accumulation_steps=2",
        f"run.dir={tmp_path}/two",
    ]
    launched([("train", parts, zero(2))], tmp_path / "cache")
    require_equal(weights(tmp_path / "one"), weights(tmp_path / "two"))


def test_a_spike_moves_no_weight(recipe_file: Path, tmp_path: Path) -> None:
    done = hurt("spike", recipe_file, tmp_path, **zero(2))
    assert done.returncode == 0, done.stderr[-3000:]
    rows = complete_lines(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows if "spike" in row] == [HURT_STEP]
    optimizer = torch.load(tmp_path / "checkpoints/0/checkpoint-8/optimizer.pt", weights_only=True)
    assert {entry["step"].item() for entry in optimizer["state"].values()} == {7}


def test_a_loss_that_is_not_finite_stops_both(recipe_file: Path, tmp_path: Path) -> None:
    done = hurt("nan", recipe_file, tmp_path, **zero(2))
    assert done.returncode != 0
    assert done.stderr.count("qvft: the loss is nan at step 7; samples: train") == 1
    checkpoints = (tmp_path / "checkpoints" / "0").glob("checkpoint-*")
    assert sorted(path.name for path in checkpoints) == ["checkpoint-4", "checkpoint-6"]


def test_each_process_holds_half_of_the_moments(recipe_file: Path, tmp_path: Path) -> None:
    done = under_two("dealt.py", [str(recipe_file), f"run.dir={tmp_path}"], **zero(2))
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"moments')]
    assert len(rows) == 6  # two processes save three checkpoints
    for row in rows:
        # Each group of weights is filled up to a multiple of its alignment.
        assert row["moments"] == pytest.approx(row["weights"], rel=1e-3)
