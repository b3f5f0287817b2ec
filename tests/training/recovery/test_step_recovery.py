"""Steps that blow up or stand out, batches that do not fit: whole runs of a small model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import TrainerCallback

from qvft.data.rows import training_rows
from qvft.errors import NonFiniteWeightsError
from qvft.json_files import complete_lines
from qvft.recipe.load import load_recipe
from qvft.train import main
from qvft.training.arguments import training_arguments
from qvft.training.batches.sampler import GroupedSampler
from qvft.training.objectives.alignment import AlignmentObjective
from qvft.training.objectives.language import LanguageModelling
from qvft.training.optim import parameter_groups
from qvft.training.phase_setup import phase_setup
from qvft.training.prepare_training import prepare_training
from qvft.training.trainer import QFormerTrainer

FILES = ("adapter_model.safetensors", "bridge.safetensors")
SPIKE_STEP = 7
SPIKES = [
    "train.max_steps=9",
    "train.spike.window=8",
    "train.save_steps=4",
    "train.preflight=false",
]


def started(recipe: Path, folder: Path, *overrides: str) -> int:
    return main([str(recipe), f"run.dir={folder}", "train.resume=auto", *overrides])


def contents(run: Path) -> list[bytes]:
    return [(run / "adapter" / file).read_bytes() for file in FILES]


def events(run: Path, name: str) -> list[tuple[int, Any]]:
    return [
        (row["step"], row[name]) for row in complete_lines(run / "metrics.jsonl") if name in row
    ]


def cut_back(run: Path, folder: Path, step: int) -> Path:
    """A copy of a run that was killed after its checkpoint of a step."""
    shutil.copytree(run, folder)
    shutil.rmtree(folder / "adapter", ignore_errors=True)
    for checkpoint in (folder / "checkpoints" / "0").glob("checkpoint-*"):
        if int(checkpoint.name.rpartition("-")[2]) > step:
            shutil.rmtree(checkpoint)
    return folder


# What blows up


def test_a_gradient_that_is_not_finite_stops_before_weights_move(
    recipe_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The loss is finite throughout; the third step's gradient overflows in the projection."""
    compute = QFormerTrainer.compute_loss

    def overflowing(
        self: QFormerTrainer, model: Any, inputs: Any, *args: Any, **kwargs: Any
    ) -> Any:
        weight = self.model.model.language_projection.weight
        if self.state.global_step == 2:
            weight.register_hook(lambda gradient: gradient * float("inf"))
        return compute(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(QFormerTrainer, "compute_loss", overflowing)
    assert started(recipe_file, tmp_path / "run") == 1
    said = capsys.readouterr().err
    assert "the norm of the gradient is inf at step 3; samples: train" in said
    assert "first in the gradient of language_projection.weight (language_projection)" in said
    assert "picture" not in said  # no text of the data
    checkpoints = [path.name for path in (tmp_path / "run" / "checkpoints" / "0").iterdir()]
    assert checkpoints == ["checkpoint-2"]
    assert not (tmp_path / "run" / "adapter").exists()


def test_weights_that_are_not_finite_are_not_written(recipe_file: Path, tmp_path: Path) -> None:
    work = prepare_training(load_recipe(recipe_file))
    phase_setup(work, work.plans[0], tmp_path / "checkpoints")
    work.save_weights(tmp_path / "adapter")
    before = (tmp_path / "adapter" / "manifest.json").read_bytes()
    with torch.no_grad():
        work.loaded.model.query_tokens[0, 1, 2] = float("nan")
    with pytest.raises(NonFiniteWeightsError, match="1 trained weights.*first query_tokens"):
        work.save_weights(tmp_path / "adapter")
    assert (tmp_path / "adapter" / "manifest.json").read_bytes() == before


@pytest.mark.slow
def test_an_evaluation_loss_that_is_not_finite_names_its_samples(
    recipe_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    forward = LanguageModelling.forward

    def broken(self: LanguageModelling, **batch: Tensor) -> dict[str, Tensor]:
        outputs = forward(self, **batch)
        if not self.training:
            outputs["row_loss"] = outputs["row_loss"].clone()
            outputs["row_loss"][0] = float("nan")
        return outputs

    monkeypatch.setattr(LanguageModelling, "forward", broken)
    status = started(recipe_file, tmp_path, "train.eval_steps=2", "train.preflight=false")
    assert status == 1
    assert "evaluation rows is not finite at step 2; samples: test0" in capsys.readouterr().err


# What stands out


@pytest.fixture
def spiking(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Multiplies the loss of one batch by 40; returns the row it is told by, of `SPIKE_STEP`."""
    recipe = load_recipe(recipe_file)
    work = prepare_training(recipe)
    rows = training_rows(work.train.samples, texts="all")
    order = list(
        GroupedSampler([row.sample.id for row in rows], group_size=1, seed=recipe.run.seed)
    )
    row = order[8 * (SPIKE_STEP - 1)]
    compute = QFormerTrainer.compute_loss

    def standing_out(
        self: QFormerTrainer, model: Any, inputs: Any, *args: Any, **kwargs: Any
    ) -> Any:
        loss = compute(self, model, inputs, *args, **kwargs)
        return 40 * loss if row in inputs["row_index"].tolist() else loss

    monkeypatch.setattr(QFormerTrainer, "compute_loss", standing_out)
    return row


def test_a_spike_is_left_out_and_a_resumed_run_does_the_same(
    spiking: int, recipe_file: Path, tmp_path: Path
) -> None:
    skip = [*SPIKES, "train.spike.policy=skip", "train.save_steps=1", "train.save_total_limit=9"]
    whole = tmp_path / "whole"
    assert started(recipe_file, whole, *skip) == 0
    ((step, spike),) = events(whole, "spike")
    assert (step, spike["policy"]) == (SPIKE_STEP, "skip")
    assert spike["loss"] > spike["limit"] > 0
    assert len(spike["samples"]) == 8
    rates = [rate for _, rate in events(whole, "learning_rate")]
    assert rates[0] == 0 and rates[1:] == sorted(set(rates[1:]), reverse=True)  # goes on
    checkpoints = whole / "checkpoints" / "0"
    assert_nothing_moved(
        checkpoints / f"checkpoint-{SPIKE_STEP - 1}", checkpoints / f"checkpoint-{SPIKE_STEP}"
    )

    # From step 4: the four losses before it are what the limit of step 7 is made of.
    resumed = cut_back(whole, tmp_path / "resumed", 4)
    assert started(recipe_file, resumed, *skip) == 0
    assert events(resumed, "spike") == events(whole, "spike")
    assert contents(resumed) == contents(whole)


def assert_nothing_moved(before: Path, after: Path) -> None:
    """Weights and the optimizer's moments of two checkpoints are equal."""
    for file in FILES:
        assert (before / file).read_bytes() == (after / file).read_bytes()
    first, second = (torch.load(one / "optimizer.pt", weights_only=True) for one in (before, after))
    for number, state in first["state"].items():
        assert all(torch.equal(second["state"][number][key], value) for key, value in state.items())


@pytest.mark.slow
def test_a_spike_stops_the_run_and_skipping_takes_it_on(
    spiking: int, recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert started(recipe_file, tmp_path, *SPIKES, "train.spike.policy=stop") == 1
    said = capsys.readouterr().err
    assert f"at step {SPIKE_STEP} is a spike" in said and "samples: train" in said
    assert (tmp_path / "checkpoints" / "0" / "checkpoint-4").is_dir()
    assert not (tmp_path / "checkpoints" / "0" / "checkpoint-7").exists()
    assert started(recipe_file, tmp_path, *SPIKES, "train.spike.policy=skip") == 0
    assert [step for step, _ in events(tmp_path, "spike")] == [SPIKE_STEP]


# What does not fit


def narrow(monkeypatch: pytest.MonkeyPatch, rows: int, *, backward: bool = False) -> list[int]:
    """Lets memory run out above so many rows, in the forward or amid the backward pass.

    Returns the rows of every pass in training mode that was begun.
    """
    forward, seen = LanguageModelling.forward, list[int]()

    def run_out(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def limited(self: LanguageModelling, **batch: Tensor) -> dict[str, Tensor]:
        count = len(batch["input_ids"])
        if self.training:
            seen.append(count)
        if count > rows and self.training and not backward:
            run_out()
        if count > rows and self.training:
            # The decoder's adapters have their gradients when the projection's comes.
            weight = self.model.language_projection.weight
            handle = weight.register_hook(lambda gradient: (handle.remove(), run_out()))
        return forward(self, **batch)

    monkeypatch.setattr(LanguageModelling, "forward", limited)
    return seen


class Gradients(TrainerCallback):
    """Keeps the gradients of every step, as the optimizer gets them."""

    def __init__(self) -> None:
        self.found: list[dict[str, Tensor]] = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs) -> None:
        self.found.append(
            {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
        )


@pytest.fixture
def trained(recipe_file: Path, tmp_path: Path) -> Callable[[], tuple[QFormerTrainer, Gradients]]:
    """Trains two steps of two batches of eight in float64, five texts of an image together."""

    def train() -> tuple[QFormerTrainer, Gradients]:
        recipe = load_recipe(
            recipe_file, ["train.max_steps=2", "train.gradient_accumulation_steps=2"]
        )
        work = prepare_training(recipe)
        setup = phase_setup(work, work.plans[0], tmp_path / "unused")
        module = setup.module.double()

        def collate(rows: Any) -> dict[str, Tensor]:
            batch = work.loaded.collator(rows)
            return {**batch, "pixel_values": batch["pixel_values"].double()}

        gradients = Gradients()
        setup = replace(
            setup,
            arguments=training_arguments(
                {**recipe.train.model_dump(), "save_steps": None},
                output_dir=tmp_path / "unused",
                seed=0,
                workers=0,
                has_eval=False,
            ),
            collator=collate,
            eval_rows=None,
            callbacks=[gradients],
            groups=parameter_groups(
                module,
                work.loaded.base.family,
                recipe.train.learning_rate.model_dump(),
                weight_decay=0.05,
            ),
            texts_per_image=3,
        )
        trainer = QFormerTrainer(
            setup,
            save_weights=lambda folder: None,
            restore_weights=lambda folder: None,
            metrics_file=tmp_path / "metrics.jsonl",
        )
        trainer.train()
        return trainer, gradients

    return train


@pytest.mark.parametrize("backward", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_halved_batch_gives_the_gradients_of_the_whole(
    trained: Callable[[], tuple[QFormerTrainer, Gradients]],
    monkeypatch: pytest.MonkeyPatch,
    backward: bool,
) -> None:
    whole, expected = trained()
    seen = narrow(monkeypatch, 3, backward=backward)
    halved, found = trained()
    assert (whole.recovery.state.halvings, halved.recovery.state.halvings) == (0, 2)
    assert max(seen[-8:]) <= 3 and sum(seen[-8:]) == 16  # the last step: two batches in four parts
    for first, second in zip(expected.found, found.found, strict=True):
        assert first.keys() == second.keys()
        for name, gradient in first.items():
            # float64 sums of some thousand terms below 1 in another order: 1e-13; after clipping.
            torch.testing.assert_close(second[name], gradient, rtol=0, atol=1e-10, msg=name)
    for name, weight in whole.model.named_parameters():
        other = dict(halved.model.named_parameters())[name]
        # AdamW divides by a root plus 1e-8, which lets a gradient's error grow 1e8 times at most,
        # times the learning rate 1e-3.
        torch.testing.assert_close(other, weight, rtol=0, atol=1e-8, msg=name)


def test_halving_is_said_and_a_resumed_run_keeps_it(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"
    narrow(monkeypatch, 4)
    assert started(recipe_file, whole, "train.preflight=false") == 0
    said = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    assert events(whole, "out_of_memory") == [(1, said)]

    resumed = cut_back(whole, tmp_path / "resumed", 4)
    seen = narrow(monkeypatch, 4)
    assert started(recipe_file, resumed, "train.preflight=false") == 0
    assert max(seen) == 4  # no pass of eight rows was tried again
    # Bit-equal: the same parts in the same order, on one thread.
    assert contents(resumed) == contents(whole)


@pytest.mark.slow
def test_a_single_row_that_does_not_fit_ends_the_run(
    recipe_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen = narrow(monkeypatch, 0)
    assert started(recipe_file, tmp_path, "train.preflight=false") == 1
    assert seen == [8, 4, 2, 1]
    assert "memory ran out at step 1 with 1 texts at once" in capsys.readouterr().err


def test_a_batch_whose_rows_depend_on_each_other_is_not_halved(
    recipe_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    narrow(monkeypatch, 4)
    monkeypatch.setattr(LanguageModelling, "adds_over_rows", False)
    assert started(recipe_file, tmp_path, "train.preflight=false") == 1
    assert (
        "set train.per_device_train_batch_size=4 train.gradient_accumulation_steps=2"
        in capsys.readouterr().err
    )


BY_TOKENS = ["train.batch_tokens=401", "train.max_steps=1", "train.preflight=false"]
SMALLER = {"batch_tokens": 201, "gradient_accumulation_steps": 2}


def test_where_batches_are_counted_in_tokens_halving_names_half_of_these(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = narrow(monkeypatch, 8)
    assert started(recipe_file, tmp_path, *BY_TOKENS) == 0
    assert 8 < seen[0] <= 16  # of its 24 texts some are in the first batch
    assert events(tmp_path, "out_of_memory") == [(1, SMALLER)]


def test_where_batches_are_counted_in_tokens_a_smaller_number_of_them_is_what_helps(
    recipe_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen = narrow(monkeypatch, 8)
    monkeypatch.setattr(LanguageModelling, "adds_over_rows", False)
    assert started(recipe_file, tmp_path, *BY_TOKENS) == 1
    said = capsys.readouterr().err
    assert f"memory ran out at step 1 with {seen[0]} texts at once" in said
    assert (
        "set train.batch_tokens=201 train.gradient_accumulation_steps=2, or "
        "train.gradient_checkpointing=true" in said
    )


@pytest.mark.parametrize(
    ("weights", "adds"), [({"lm": 1.0, "itg": 1.0}, True), ({"lm": 1.0, "itc": 1.0}, False)]
)
def test_contrast_depends_on_the_other_rows(weights: dict[str, float], adds: bool) -> None:
    objective = SimpleNamespace(weights=weights, custom={})
    assert AlignmentObjective.adds_over_rows.fget(objective) is adds


def test_a_checkpoint_from_before_there_was_such_a_state_is_gone_on_from(
    tiny_run: Path, recipe_file: Path, tmp_path: Path
) -> None:
    resumed = cut_back(tiny_run, tmp_path / "run", 4)
    path = resumed / "checkpoints" / "0" / "checkpoint-4" / "trainer_state.json"
    state = json.loads(path.read_text())
    del state["stateful_callbacks"]["RecoveryState"]
    path.write_text(json.dumps(state))
    assert started(recipe_file, resumed) == 0
    assert contents(resumed) == contents(tiny_run)
