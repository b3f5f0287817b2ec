"""How fast, and in how much memory, a recipe trains beside plain practice, measured in turn.

Shape letters: I images, B rows, L row length, P patches, W ViT width.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from qvft.assembly.bench_machine import matmul_rate, resident_peak
from qvft.assembly.training import PhasePlan, TrainingWork, packer_of, training_work
from qvft.data.collate import IGNORED, Collator
from qvft.data.rows import Row
from qvft.errors import RecipeError
from qvft.models.stages import encode_vision
from qvft.recipe.schema import Recipe
from qvft.training.arguments import recompute_activations, use_bf16
from qvft.training.losses import LanguageModelling
from qvft.training.sampler import GroupedSampler


@dataclass(frozen=True)
class Way:
    """A way to lay out the same texts.

    Attributes:
        image_once: an image is encoded once for its rows, rather than once a row.
        packed: rows are packed, rather than padded to the longest.
        cached: the ViT's features are at hand.
        own_forward: the model's own `forward` with logits at every position, in place of logits
            at supervised positions.
    """

    image_once: bool = True
    packed: bool = True
    cached: bool = True
    own_forward: bool = False


WAYS = {
    "plain": Way(image_once=False, packed=False, cached=False, own_forward=True),
    "label_logits": Way(image_once=False, packed=False, cached=False),
    "image_once": Way(packed=False, cached=False),
    "packed": Way(cached=False),
    "cached": Way(packed=False),
    "qvft": Way(),
}
"""Plain practice, the parts one after the other and each beside it, everything."""


@dataclass(frozen=True)
class TrainingPace:
    """What one way comes to.

    Attributes:
        seconds: of every round.
        texts_per_second, label_tokens_per_second: in the median round.
        peak_memory_bytes: most memory of a step above what was held before it.
        flops_per_text: operations of matrix products and attention, forward and backward.
        flops_per_second: those, achieved in the median round.
    """

    seconds: tuple[float, ...]
    texts_per_second: float
    label_tokens_per_second: float
    peak_memory_bytes: int
    flops_per_text: float
    flops_per_second: float


@dataclass(frozen=True)
class TrainingBench:
    """What was measured.

    Attributes:
        ways: the pace of each of `WAYS`.
        speedup: texts a second of `qvft` over `plain`.
        promised: the speed-up that the operations alone would give.
        max_abs_loss_difference, max_abs_gradient_difference: over all batches and weights.
        max_abs_gradient: the largest gradient beside it.
        matmul_flops_per_second: of a large product of matrices in the type that trains.
    """

    ways: dict[str, TrainingPace]
    speedup: float
    promised: float
    max_abs_loss_difference: float
    max_abs_gradient_difference: float
    max_abs_gradient: float
    matmul_flops_per_second: float
    texts: int
    images: int
    label_tokens: int
    batches: int
    rounds: int
    precision: str


def bench_training(
    recipe: Recipe, *, rounds: int, steps: int, ways: Sequence[str] = tuple(WAYS)
) -> TrainingBench:
    """Takes `steps` steps in each way and round: the same texts, model and optimizer.

    Learning rates are zero, so that all ways and rounds work on the same weights. Images are
    decoded and features made before the clock starts. Activation checkpointing is the recipe's.

    Args:
        ways: names of those to measure, `plain` and `qvft` among them.

    Raises:
        UserError: the recipe, the data or the base is wrong.
    """
    work = training_work(recipe)
    plan = next((p for p in work.plans if p.phase.objective == "language"), None)
    if plan is None:
        raise RecipeError("has no phase with the language loss", where="phases")
    work.counts(plan)
    model = work.loaded.model
    recompute_activations(model, plan.train.checkpointing)
    batches = _rows_of_batches(work, plan, steps)
    bf16 = use_bf16(plan.train.precision)
    bench = _Bench(model, bf16=bf16)
    chosen = {name: way for name, way in WAYS.items() if name in ways}
    laid = {name: _laid_out(work, way, batches) for name, way in chosen.items()}
    loss, gradient, largest = bench.differences(laid["plain"], laid["qvft"])
    texts = sum(len(rows) for rows in batches)
    labels = sum(int((batch["labels"] != IGNORED).sum()) for batch in laid["plain"])
    flops = {name: bench.flops(way, laid[name]) for name, way in chosen.items()}
    memory = {name: bench.memory(way, laid[name]) for name, way in chosen.items()}
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    for _ in range(rounds):
        for name, way in chosen.items():
            seconds[name].append(bench.timed(way, laid[name]))
    paces = {
        name: TrainingPace(
            tuple(taken),
            texts / statistics.median(taken),
            labels / statistics.median(taken),
            memory[name],
            flops[name] / texts,
            flops[name] / statistics.median(taken),
        )
        for name, taken in seconds.items()
    }
    return TrainingBench(
        paces,
        speedup=paces["qvft"].texts_per_second / paces["plain"].texts_per_second,
        promised=flops["plain"] / flops["qvft"],
        max_abs_loss_difference=loss,
        max_abs_gradient_difference=gradient,
        max_abs_gradient=largest,
        matmul_flops_per_second=matmul_rate(
            model.device, torch.bfloat16 if bf16 else torch.float32
        ),
        texts=texts,
        images=len({row.sample.id for rows in batches for _, row in rows}),
        label_tokens=labels,
        batches=len(batches),
        rounds=rounds,
        precision="bf16" if bf16 else "fp32",
    )


def _rows_of_batches(
    work: TrainingWork, plan: PhasePlan, steps: int
) -> list[list[tuple[int, Row]]]:
    """The first batches of an epoch; fewer than `steps` where the data has no more."""
    rows, train = work.rows(plan, work.train, training=True), plan.train
    by_tokens = work.token_batches(plan)
    if by_tokens is None:
        names, seed = [row.sample.id for row in rows], work.recipe.run.seed
        order = list(GroupedSampler(names, group_size=train.texts_per_image, seed=seed))
        starts = range(0, len(order), train.batch_size)
        chunks = [order[at : at + train.batch_size] for at in starts]
    else:
        chunks = list(by_tokens)
    return [[(index, rows[index]) for index in chunk] for chunk in chunks[:steps]]


@torch.no_grad()
def _laid_out(
    work: TrainingWork, way: Way, batches: Sequence[Sequence[tuple[int, Row]]]
) -> list[dict[str, Tensor]]:
    """The batches as a way wants them, on the model's device."""
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


class _Bench:
    """Steps on one model, in whichever way."""

    def __init__(self, model: nn.Module, *, bf16: bool) -> None:
        self.model, self.bf16 = model, bf16
        self.place = model.device
        self.objective = LanguageModelling(model).train()
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=0.0)
        self.objective.zero_grad()

    def loss(self, way: Way, batch: Mapping[str, Tensor]) -> Tensor:
        """Mean loss of a batch's supervised tokens."""
        with torch.autocast(self.place.type, dtype=torch.bfloat16, enabled=self.bf16):
            if way.own_forward:
                inputs = {k: v for k, v in batch.items() if k != "image_index"}
                return self.model(**inputs).loss
            outputs = self.objective(**batch)
            return outputs["loss_sum"] / outputs["count"]

    def step(self, way: Way, batch: Mapping[str, Tensor]) -> None:
        """Forward, backward, optimizer."""
        self.loss(way, batch).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def timed(self, way: Way, batches: Sequence[Mapping[str, Tensor]]) -> float:
        """Seconds of a step on each batch."""
        self._wait()
        start = time.perf_counter()
        for batch in batches:
            self.step(way, batch)
        self._wait()
        return time.perf_counter() - start

    def flops(self, way: Way, batches: Sequence[Mapping[str, Tensor]]) -> float:
        """Operations of a step on each batch, as torch counts them."""
        with FlopCounterMode(display=False) as counter:
            for batch in batches:
                self.loss(way, batch).backward()
        self.optimizer.zero_grad()
        return float(counter.get_total_flops())

    def memory(self, way: Way, batches: Sequence[Mapping[str, Tensor]]) -> int:
        """Bytes that the largest step takes above what is held between steps."""
        self.step(way, batches[0])
        gc.collect()
        if self.place.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.place)
            before = torch.cuda.memory_allocated(self.place)
            self.timed(way, batches)
            return torch.cuda.max_memory_allocated(self.place) - before
        with resident_peak() as peak:
            self.timed(way, batches)
        return peak()

    def differences(
        self, first: Sequence[Mapping[str, Tensor]], second: Sequence[Mapping[str, Tensor]]
    ) -> tuple[float, float, float]:
        """Largest differences of loss and of gradient, plain against qvft; largest gradient."""
        loss, gradient, largest = 0.0, 0.0, 0.0
        self.objective.eval()
        for batches in zip(first, second, strict=True):
            found: list[tuple[Tensor, dict[str, Tensor]]] = []
            for name, batch in zip(("plain", "qvft"), batches, strict=True):
                value = self.loss(WAYS[name], batch)
                value.backward()
                found.append((value.detach(), self._gradients()))
                self.optimizer.zero_grad()
            (one, ones), (other, others) = found
            loss = max(loss, float((one - other).abs()))
            for name, value in ones.items():
                gradient = max(gradient, float((value - others[name]).abs().max()))
                largest = max(largest, float(value.abs().max()))
        self.objective.train()
        return loss, gradient, largest

    def _gradients(self) -> dict[str, Tensor]:
        named = self.model.named_parameters()
        return {n: p.grad.detach().clone() for n, p in named if p.grad is not None}

    def _wait(self) -> None:
        if self.place.type == "cuda":
            torch.cuda.synchronize(self.place)
