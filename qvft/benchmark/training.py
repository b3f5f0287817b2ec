"""Benchmarks training throughput and peak memory: qvft against a plain implementation.

Shape letters: I images, B rows, L row length, P patches, W ViT width.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from qvft.benchmark.machine import Comparison, matmul_rate
from qvft.benchmark.steps import WAYS, Steps, Way
from qvft.data.collate import IGNORED, Collator
from qvft.data.rows import Row
from qvft.errors import RecipeError
from qvft.evaluation.rewards import reward_functions
from qvft.models.decoders import is_encoder_decoder
from qvft.models.forward_stages import encode_vision
from qvft.recipe.phases import PhasePlan
from qvft.recipe.schema import Recipe
from qvft.setup.model import base_of
from qvft.training.arguments import recompute_activations, use_bf16
from qvft.training.batches.sampler import GroupedSampler
from qvft.training.compiling import compile_blocks
from qvft.training.objectives.build import packer_of
from qvft.training.prepare_training import prepare_training
from qvft.training.training_run import TrainingRun


@dataclass(frozen=True)
class TrainingPace:
    """Result of one variant.

    Attributes:
        texts_per_second, label_tokens_per_second: throughput in the median round.
        peak_memory_bytes: peak memory of a step above that before it.
        flops_per_text: FLOPs of matrix products and attention, forward and backward.
        flops_per_second: those, achieved in the median round.
    """

    seconds: tuple[float, ...]
    texts_per_second: float
    label_tokens_per_second: float
    peak_memory_bytes: int
    flops_per_text: float
    flops_per_second: float


@dataclass(frozen=True, kw_only=True)
class TrainingBench(Comparison):
    """Result of the training benchmark.

    Attributes:
        speedup: texts per second of `qvft` over `plain`.
        max_abs_loss_difference: over all batches.
        matmul_flops_per_second: of a large product of matrices in the type that trains.
    """

    ways: dict[str, TrainingPace]
    speedup: float
    max_abs_loss_difference: float
    matmul_flops_per_second: float
    texts: int
    label_tokens: int


def bench_training(
    recipe: Recipe,
    *,
    rounds: int,
    steps: int,
    ways: Sequence[str] = tuple(WAYS),
    given: TrainingRun | None = None,
) -> TrainingBench:
    """Runs `steps` steps per variant and round: the same texts, model and optimizer.

    Learning rates are zero, so that weights stay the same. Images are decoded and features computed
    before timing starts. Gradient checkpointing is as in the recipe; so are compiled blocks and
    FlexAttention, except for the plain variant, which has neither. An encoder-decoder, for which
    there is no plain implementation, or a first phase of another objective, is a RecipeError.

    Args:
        ways: names of those to measure, `plain` and `qvft` among them.
        given: the recipe's `prepare_training`, if already made.
    """
    config = (given.loaded.base if given else base_of(recipe)).config
    if is_encoder_decoder(config):
        raise RecipeError(
            f"its decoder is {config.text_config.model_type}, whose training is not compared",
            where="model.id",
            expected="a decoder-only model",
            do="measure --only predict",
        )
    work = given or prepare_training(recipe, rewards=reward_functions)
    objective = work.plans[0].phase.objective
    if objective != "language":
        raise RecipeError(
            f"{objective}, which is not compared with a plain loop of the language loss",
            where="phases.0.objective",
            expected="language",
            do=f"measure --only {objective}",
        )
    plan = prepared(work)
    model = work.loaded.model
    batches = rows_of_batches(work, plan, steps)
    bf16 = use_bf16(plan.train.mixed_precision)
    bench = Steps(model, bf16=bf16)
    laid = {name: laid_out(work, way, batches) for name, way in WAYS.items() if name in ways}
    loss, gradient, largest = bench.differences(laid["plain"], laid["qvft"])
    texts = sum(len(rows) for rows in batches)
    paces = measured_paces(bench, laid, texts=texts, rounds=rounds)
    return TrainingBench(
        ways=paces,
        speedup=paces["qvft"].texts_per_second / paces["plain"].texts_per_second,
        promised=paces["plain"].flops_per_text / paces["qvft"].flops_per_text,
        max_abs_loss_difference=loss,
        max_abs_gradient_difference=gradient,
        max_abs_gradient=largest,
        matmul_flops_per_second=matmul_rate(
            model.device, torch.bfloat16 if bf16 else torch.float32
        ),
        texts=texts,
        images=len({row.sample.id for rows in batches for _, row in rows}),
        label_tokens=label_tokens(laid["plain"]),
        batches=len(batches),
        rounds=rounds,
        precision="bf16" if bf16 else "fp32",
    )


def measured_paces(
    bench: Steps,
    laid: Mapping[str, Sequence[Mapping[str, Tensor]]],
    *,
    texts: int,
    rounds: int,
) -> dict[str, TrainingPace]:
    """FLOPs, peak memory and time of each variant, the variants alternating in every round.

    Args:
        laid: by variant its batches, from `laid_out`: the same texts in each.
        texts: number of these texts.
    """
    labels = label_tokens(next(iter(laid.values())))
    flops = {name: bench.flops(WAYS[name], batches) for name, batches in laid.items()}
    memory = {name: bench.memory(WAYS[name], batches) for name, batches in laid.items()}
    seconds: dict[str, list[float]] = {name: [] for name in laid}
    for _ in range(rounds):
        for name, batches in laid.items():
            seconds[name].append(bench.timed(WAYS[name], batches))
    paces = {}
    for name, taken in seconds.items():
        median = statistics.median(taken)
        paces[name] = TrainingPace(
            tuple(taken),
            texts / median,
            labels / median,
            memory[name],
            flops[name] / texts,
            flops[name] / median,
        )
    return paces


def label_tokens(batches: Sequence[Mapping[str, Tensor]]) -> int:
    """Number of supervised tokens."""
    return sum(int((batch["labels"] != IGNORED).sum()) for batch in batches)


def prepared(work: TrainingRun) -> PhasePlan:
    """The first phase, with the model's weights frozen and its blocks compiled as it wants."""
    plan = work.plans[0]
    work.counts(plan)
    model = work.loaded.model
    recompute_activations(model, plan.train.gradient_checkpointing)
    compile_blocks(model, work.loaded.base.family, plan.train.torch_compile)
    return plan


def rows_of_batches(work: TrainingRun, plan: PhasePlan, steps: int) -> list[list[tuple[int, Row]]]:
    """The first batches of an epoch, at most `steps`."""
    rows, train = work.rows(plan, work.train, training=True), plan.train
    by_tokens = work.token_batches(plan)
    if by_tokens is None:
        order = list(
            GroupedSampler(
                [row.sample.id for row in rows],
                group_size=train.texts_per_image,
                seed=work.recipe.run.seed,
                mixture=work.mixture(plan),
            )
        )
        starts = range(0, len(order), train.per_device_train_batch_size)
        chunks = [order[at : at + train.per_device_train_batch_size] for at in starts]
    else:
        chunks = list(by_tokens)
    return [[(index, rows[index]) for index in chunk] for chunk in chunks[:steps]]


@torch.no_grad()
def laid_out(
    work: TrainingRun, way: Way, batches: Sequence[Sequence[tuple[int, Row]]]
) -> list[dict[str, Tensor]]:
    """The batches of a variant, collated, on the model's device."""
    loaded = work.loaded
    collator: Collator = loaded.collator
    if way.packed:
        collator = replace(collator, packer=packer_of(loaded.base))
    place, found = loaded.model.device, []
    for rows in batches:
        batch = {key: value.to(place) for key, value in collator(rows).items()}
        del batch["row_index"]
        if way.cached:
            batch["features"] = encode_vision(loaded.model, batch.pop("pixel_values"))
        if not way.image_once:
            batch["pixel_values"] = batch["pixel_values"][batch["image_index"]]
            batch["image_index"] = torch.arange(len(rows), device=place)
        found.append(batch)
    return found
