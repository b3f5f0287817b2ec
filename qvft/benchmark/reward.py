"""Benchmarks reward tuning: samples and updates per second, qvft against the plain way.

The plain way is that of trl's trainers: each sample is a row of its own, with passes of ViT,
Q-Former and prompt of its own in sampling and in learning, padded to the longest row.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace

from qvft.benchmark import machine
from qvft.benchmark.reward_sides import RewardSide, own_image
from qvft.benchmark.training import rows_of_batches
from qvft.errors import RecipeError
from qvft.evaluation.rewards import reward_functions
from qvft.recipe.schema import Recipe
from qvft.training.arguments import use_bf16
from qvft.training.phase_rows import is_reward
from qvft.training.prepare_training import prepare_training


@dataclass(frozen=True)
class RewardPace:
    """Result of one side: medians over rounds; FLOPs are those of products and attention."""

    samples_per_second: float
    updates_per_second: float
    peak_memory_bytes: int
    flops_per_update: float


@dataclass(frozen=True, kw_only=True)
class RewardBench(machine.Comparison):
    """Result of the benchmark of reward tuning.

    An update is sampling, rewards, forward, backward and optimizer step.

    Attributes:
        sampling_speedup, update_speedup: of qvft over the plain way.
        memory_ratio: peak memory of an update, plain over qvft.
    """

    plain: RewardPace
    qvft: RewardPace
    sampling_speedup: float
    update_speedup: float
    memory_ratio: float
    rows: int
    num_generations: int


def bench_reward(recipe: Recipe, *, rounds: int, steps: int) -> RewardBench:
    """Runs `steps` updates per side and round, alternating: the same rows, weights and optimizer.

    Learning rates are zero, so that weights stay the same. Images are decoded and features computed
    before timing starts. Neither side has a KL term, which would add passes to both. A recipe
    without reward phase, or rewards of the first batch that do not differ, are a RecipeError.
    """
    recipe = recipe.model_copy(update={"reward": recipe.reward.model_copy(update={"beta": 0.0})})
    work = prepare_training(recipe, rewards=reward_functions)
    plan = next(filter(is_reward, work.plans), None)
    if plan is None:
        raise RecipeError("none has objective: reward", where="phases", expected="a reward phase")
    work.counts(plan)
    bf16 = use_bf16(plan.train.mixed_precision)
    batches = rows_of_batches(work, plan, steps)
    sides = {name: RewardSide(work, plan, batches, is_plain=name == "plain", bf16=bf16)
             for name in ("plain", "qvft")}  # fmt: skip
    difference, largest = _compared_gradients(sides)
    if largest == 0:
        raise RecipeError(
            "the samples of each image in the first batch have equal rewards, so that nothing is "
            "learnt or measured",
            where="reward.funcs",
            expected="rewards that differ, of a trained model",
        )
    flops = {name: side.flops() for name, side in sides.items()}
    memory = {
        name: machine.peak_memory(side.place, side.update, side.given[:1])
        for name, side in sides.items()
    }
    sampled: dict[str, list[float]] = {name: [] for name in sides}
    updated: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            sampled[name].append(machine.seconds_of(side.sample, side.given))
            updated[name].append(machine.seconds_of(side.update, side.given))
    rows = sum(map(len, batches))
    samples = rows * recipe.reward.num_generations
    paces = {
        name: RewardPace(
            samples / statistics.median(sampled[name]),
            len(batches) / statistics.median(updated[name]),
            memory[name],
            flops[name] / len(batches),
        )
        for name in sides
    }
    plain, qvft = paces["plain"], paces["qvft"]
    return RewardBench(
        **paces,
        sampling_speedup=qvft.samples_per_second / plain.samples_per_second,
        update_speedup=qvft.updates_per_second / plain.updates_per_second,
        memory_ratio=plain.peak_memory_bytes / max(1, qvft.peak_memory_bytes),
        promised=plain.flops_per_update / qvft.flops_per_update,
        max_abs_gradient_difference=difference,
        max_abs_gradient=largest,
        rows=rows,
        images=len({row.sample.id for batch in batches for _, row in batch}),
        num_generations=recipe.reward.num_generations,
        batches=len(batches),
        rounds=rounds,
        precision="bf16" if bf16 else "fp32",
    )


def _compared_gradients(sides: Mapping[str, RewardSide]) -> tuple[float, float]:
    """`machine.gradient_difference` of both ways on the samples of the first batch."""
    ours, plain = sides["qvft"], sides["plain"]
    batch = ours.laid_out(ours.given[0])
    texts = [
        replace(text, row=own_image(text.row, place, 0))
        for place, text in enumerate(ours.rollouts.texts_of(batch))
    ]
    collated = plain.rollouts.collate(texts, plain.given[0].seen(texts))
    alone = {name: one.to(plain.place) for name, one in collated.items()}
    alone |= {name: batch[name] for name in ("texts", "tokens")}
    theirs, own = (
        machine.gradients(side.loss(one), side.module.model, side.optimizer)
        for side, one in ((plain, alone), (ours, batch))
    )
    return machine.gradient_difference(theirs, own)
