"""Benchmarks DPO: pairs per second and peak memory, qvft against trl's own DPOTrainer.

Shape letters: I images, P pairs.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qvft.benchmark import machine
from qvft.benchmark.training import rows_of_batches
from qvft.benchmark.trl_dpo import TrlSteps
from qvft.data.rows import Row
from qvft.errors import RecipeError
from qvft.models.forward_stages import encode_vision
from qvft.recipe.phases import PhasePlan
from qvft.recipe.schema import Recipe
from qvft.training.activations import lean_activations
from qvft.training.arguments import recompute_activations, use_bf16
from qvft.training.objectives.alignment_losses import combined_loss
from qvft.training.objectives.preference import PreferenceCollator, PreferenceObjective, key_of
from qvft.training.phase_rows import PREFERENCE
from qvft.training.prepare_training import prepare_training
from qvft.training.training_run import TrainingRun

Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class PreferencePace:
    """Result of one side; FLOPs are those of products of matrices and attention, both passes."""

    seconds: tuple[float, ...]
    pairs_per_second: float
    peak_memory_bytes: int
    flops_per_pair: float


@dataclass(frozen=True, kw_only=True)
class PreferenceBench(machine.Comparison):
    """Result of the benchmark of preference tuning.

    Attributes:
        speedup: pairs per second of qvft over trl's.
        memory_ratio: peak memory of a step of trl's over qvft's.
        reference_seconds: the pass that computes the reference of these pairs, which qvft makes
            once per phase, and trl in every step.
    """

    trl: PreferencePace
    qvft: PreferencePace
    speedup: float
    memory_ratio: float
    reference_seconds: float
    pairs: int


def bench_preference(recipe: Recipe, *, rounds: int, steps: int) -> PreferenceBench:
    """Runs `steps` steps per side and round, alternating: the same pairs, weights and optimizer.

    Learning rates are zero, so that weights stay the same. Images are decoded and features computed
    before timing starts; trl's trainer gets decoded images, and encodes them in every step. A
    recipe without preference phase, or that trl's trainers cannot train, is a RecipeError.
    """
    work = prepare_training(recipe)
    plan = next((plan for plan in work.plans if plan.phase.objective == PREFERENCE), None)
    if plan is None:
        raise RecipeError(
            "none has objective: preference", where="phases", expected="a phase with pairs"
        )
    work.counts(plan)
    bf16 = use_bf16(plan.train.mixed_precision)
    batches = rows_of_batches(work, plan, steps)
    pairs = sum(len(rows) for rows in batches)
    with tempfile.TemporaryDirectory() as folder:
        theirs = TrlSteps(recipe, plan, bf16=bf16, folder=folder)
        ours = QvftSteps(work, plan, bf16=bf16)
        own, reference_seconds = machine.timed(lambda: [ours.laid_out(rows) for rows in batches])
        sides: dict[str, tuple[Any, Sequence[Batch]]] = {
            "trl": (theirs, [theirs.laid_out([row for _, row in rows]) for rows in batches]),
            "qvft": (ours, own),
        }
        difference, largest = machine.gradient_difference(
            *(
                machine.gradients(side.loss(laid[0]), side.model, side.optimizer)
                for side, laid in sides.values()
            )
        )
        flops, memory = {}, {}
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for name, (side, laid) in sides.items():
            flops[name] = machine.backward_flops(side.loss, laid, side.optimizer)
            memory[name] = machine.peak_memory(ours.place, side.step, laid[:1])
        for _ in range(rounds):
            for name, (side, laid) in sides.items():
                seconds[name].append(machine.seconds_of(side.step, laid))
    paces = {
        name: PreferencePace(
            tuple(taken), pairs / statistics.median(taken), memory[name], flops[name] / pairs
        )
        for name, taken in seconds.items()
    }
    return PreferenceBench(
        **paces,
        speedup=paces["qvft"].pairs_per_second / paces["trl"].pairs_per_second,
        memory_ratio=memory["trl"] / max(1, memory["qvft"]),
        promised=flops["trl"] / flops["qvft"],
        reference_seconds=reference_seconds,
        max_abs_gradient_difference=difference,
        max_abs_gradient=largest,
        pairs=pairs,
        images=len({row.sample.id for rows in batches for _, row in rows}),
        batches=len(batches),
        rounds=rounds,
        precision="bf16" if bf16 else "fp32",
    )


class QvftSteps:
    """Steps of qvft's preference objective on cached features."""

    def __init__(self, work: TrainingRun, plan: PhasePlan, *, bf16: bool) -> None:
        rows = work.rows(plan, work.train, training=True)
        module, collate = work.objective(plan, rows)
        assert isinstance(module, PreferenceObjective) and isinstance(collate, PreferenceCollator)
        module.train()
        self.module, self.collate, self.bf16 = module, collate, bf16
        self.model: nn.Module = module.model
        self.place = module.model.device
        recompute_activations(module.model, plan.train.gradient_checkpointing)
        self.optimizer = machine.idle_optimizer(self.model)

    @torch.no_grad()
    def laid_out(self, rows: Sequence[tuple[int, Row]]) -> dict[str, Tensor]:
        """A batch on the device, with features and reference log-probabilities."""
        tensors = self.collate(rows).items()
        batch = {name: one.to(self.place) for name, one in tensors if name != "row_index"}
        batch["features"] = encode_vision(self.model, batch.pop("pixel_values"))
        with torch.autocast(self.place.type, dtype=torch.bfloat16, enabled=self.bf16):
            found = self.module.eval().logps(**batch)
        self.module.train()
        keys = [key_of(row) for _, row in rows]
        known = dict(zip(keys, map(tuple, found.double().tolist()), strict=True))
        with_reference = PreferenceCollator(self.collate.collator, known)(rows)
        return {**batch, "reference_logps": with_reference["reference_logps"].to(self.place)}

    def loss(self, batch: Batch) -> Tensor:
        """Loss of a batch."""
        with torch.autocast(self.place.type, dtype=torch.bfloat16, enabled=self.bf16):
            losses = self.module(**batch)["losses"]
        counts = {name: one.count for name, one in losses.items()}
        return combined_loss(losses, self.module.weights, counts)

    def step(self, batch: Batch) -> None:
        """Forward, backward and optimizer step."""
        with lean_activations(self.module, active=self.bf16):
            self.loss(batch).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
