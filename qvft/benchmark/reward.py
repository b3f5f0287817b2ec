"""Benchmarks reward tuning: samples and updates per second, qvft against the plain way.

The plain way is that of trl's trainers: each sample is a row of its own, with passes of ViT,
Q-Former and prompt of its own in sampling and in learning, padded to the longest row.

Shape letters: I images, B rows, K samples per row.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from qvft.benchmark.machine import step_memory, timed
from qvft.benchmark.preference import idle_optimizer
from qvft.benchmark.training import rows_of_batches
from qvft.errors import RecipeError
from qvft.evaluation.rewards import reward_functions
from qvft.inference.sample import sample_rows
from qvft.inference.sampled import Sampled
from qvft.models.forward_stages import encode_features, encode_vision
from qvft.recipe.phases import PhasePlan
from qvft.recipe.schema import Recipe
from qvft.training.activations import lean_activations
from qvft.training.arguments import recompute_activations, use_bf16
from qvft.training.objectives.alignment_losses import combined_loss
from qvft.training.objectives.reward import RewardObjective
from qvft.training.phase_rows import is_reward
from qvft.training.rewards.build import reward_objective, rollouts_of
from qvft.training.rewards.collate import LearntText
from qvft.training.rewards.given_batch import GivenBatch, NumberedRow
from qvft.training.rewards.rollouts import Rollouts
from qvft.training.run_setup import TrainingSetup
from qvft.training.training_setup import training_setup


@dataclass(frozen=True)
class RewardPace:
    """Result of one side: medians over rounds; FLOPs are those of products and attention."""

    samples_per_second: float
    updates_per_second: float
    peak_memory_bytes: int
    flops_per_update: float


@dataclass(frozen=True)
class RewardBench:
    """Result of the benchmark of reward tuning.

    Attributes:
        sampling_speedup, update_speedup: of qvft over the plain way; an update is sampling,
            rewards, forward, backward and optimizer step.
        memory_ratio: peak memory of an update, plain over qvft.
        promised: the speed-up of an update expected from FLOPs.
        max_abs_gradient_difference: of both ways on the same samples, over all weights.
        max_abs_gradient: the largest gradient beside it.
    """

    plain: RewardPace
    qvft: RewardPace
    sampling_speedup: float
    update_speedup: float
    memory_ratio: float
    promised: float
    max_abs_gradient_difference: float
    max_abs_gradient: float
    rows: int
    images: int
    num_generations: int
    batches: int
    rounds: int
    precision: str


def bench_reward(recipe: Recipe, *, rounds: int, steps: int) -> RewardBench:
    """Runs `steps` updates per side and round, alternating: the same rows, weights and optimizer.

    Learning rates are zero, so that weights stay the same. Images are decoded and features computed
    before timing starts. Neither side has a KL term, which would add passes to both.

    Raises:
        RecipeError: the recipe has no reward phase.
        UserError: the recipe, the data or the base is wrong.
    """
    recipe = recipe.model_copy(update={"reward": recipe.reward.model_copy(update={"beta": 0.0})})
    work = training_setup(recipe, rewards=reward_functions)
    plan = next(filter(is_reward, work.plans), None)
    if plan is None:
        raise RecipeError("none has objective: reward", where="phases", expected="a reward phase")
    work.counts(plan)
    bf16 = use_bf16(plan.train.mixed_precision)
    batches = rows_of_batches(work, plan, steps)
    sides = {name: RewardSide(work, plan, batches, is_plain=name == "plain", bf16=bf16)
             for name in ("plain", "qvft")}  # fmt: skip
    largest, difference = _gradients_of(sides)
    flops = {name: side.flops() for name, side in sides.items()}
    memory = {name: step_memory(side.place, side.first_update) for name, side in sides.items()}
    sampled: dict[str, list[float]] = {name: [] for name in sides}
    updated: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            sampled[name].append(side.seconds(side.sample))
            updated[name].append(side.seconds(side.update))
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
        plain,
        qvft,
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


class RewardSide:
    """Sampling and updates of one way."""

    def __init__(
        self,
        work: TrainingSetup,
        plan: PhasePlan,
        batches: Sequence[Sequence[NumberedRow]],
        *,
        is_plain: bool,
        bf16: bool,
    ) -> None:
        loaded, self.bf16, self.place = work.loaded, bf16, work.loaded.model.device
        recompute_activations(loaded.model, plan.train.gradient_checkpointing)
        self.module: RewardObjective = reward_objective(loaded, work.recipe)
        self.optimizer = idle_optimizer(loaded.model)
        made = rollouts_of(loaded, work.recipe, plan, work.rewards)
        kind: type[Rollouts] = PlainRollouts if is_plain else Rollouts
        collator = replace(made.collator, packer=None) if is_plain else made.collator
        self.rollouts = kind(loaded.model, collator, made.functions, made.settings)
        self.given: list[GivenBatch] = []
        for rows in batches:
            tensors = {name: one.to(self.place) for name, one in loaded.collator(rows).items()}
            if not is_plain:
                with torch.no_grad():
                    pixels = tensors.pop("pixel_values")
                    tensors["features"] = encode_vision(loaded.model, pixels)
            self.given.append((OneByOne if is_plain else GivenBatch)(tensors, rows))

    def sample(self, given: GivenBatch) -> list[list[Sampled]]:
        """Samples of a batch."""
        self.module.eval()
        with self._autocast():
            states = self.rollouts.encoded(given.tensors)
            return self.rollouts.sampled(given, states, 0, self.rollouts.settings.num_generations)

    def update(self, given: GivenBatch) -> None:
        """Sampling, rewards, forward, backward and optimizer step."""
        batch = self.laid_out(given)
        with lean_activations(self.module, active=self.bf16):
            self.loss(batch).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Loss of a batch of samples."""
        inputs = {name: one for name, one in batch.items() if not name.endswith("_index")}
        inputs["image_index"] = batch["image_index"]
        if "encoder_index" in batch:
            inputs["encoder_index"] = batch["encoder_index"]
        with self._autocast():
            losses = self.module.train()(**inputs)["losses"]
        return combined_loss(losses, self.module.weights, self.module.counts([batch]))

    def first_update(self) -> None:
        """The update of the first batch."""
        self.update(self.given[0])

    def flops(self) -> float:
        """FLOPs of all updates: of sampling, and of the forward and backward passes."""
        trained = [one for one in self.module.parameters() if one.requires_grad]
        for one in trained:  # torch's counter fails at a trained weight where there is no gradient
            one.requires_grad_(False)
        with FlopCounterMode(display=False) as sampling:
            laid = [self.laid_out(given) for given in self.given]
        for one in trained:
            one.requires_grad_(True)
        with FlopCounterMode(display=False) as learning:
            for batch in laid:
                self.loss(batch).backward()
        self.optimizer.zero_grad()
        return float(sampling.get_total_flops() + learning.get_total_flops())

    def laid_out(self, given: GivenBatch) -> dict[str, Tensor]:
        """The samples of a batch, scored and collated."""
        with self._autocast():
            (batch,), _ = self.rollouts.batches([given], step=0, trainer_state=None)
        return batch

    def seconds(self, work: Callable[[GivenBatch], object]) -> float:
        """Seconds of `work` on all batches."""

        def run() -> None:
            for given in self.given:
                work(given)
            if torch.cuda.is_available():
                torch.cuda.synchronize()

        return timed(run)[1]

    def _autocast(self) -> Any:
        return torch.autocast(self.place.type, dtype=torch.bfloat16, enabled=self.bf16)


class OneByOne(GivenBatch):
    """A batch in which every text has its image for itself."""

    def seen(self, texts: Sequence[LearntText]) -> dict[str, Tensor]:
        """The image of each text."""
        own = [self.image_of(_shared(text.row)) for text in texts]
        return {"pixel_values": self.tensors["pixel_values"][own]}


class PlainRollouts(Rollouts):
    """Samples each text by itself, from the image on."""

    def encoded(self, batch: Mapping[str, Tensor]) -> Tensor:
        """(B K, ...) states of the image of each sample."""
        index = batch["image_index"].repeat_interleave(self.settings.num_generations)
        with torch.no_grad():
            return encode_features(
                self.model, encode_vision(self.model, batch["pixel_values"][index])
            )

    def sampled(
        self, given: GivenBatch, states: Tensor, generation: int, count: int
    ) -> list[list[Sampled]]:
        """As `Rollouts.sampled`, of rows and images that occur once per sample."""
        copies = [
            (number * count + copy, _own(row, number, copy))
            for number, row in given.asked
            for copy in range(count)
        ]
        found = sample_rows(
            self.model,
            self.collator,
            copies,
            states=states,
            image_index=range(len(copies)),
            count=1,
            max_new_tokens=self.settings.max_new_tokens,
            temperature=self.settings.temperature,
            seed=(self.settings.seed, generation),
            prompts_at_once=len(copies),
        )
        texts = [text for (text,) in found]
        return [texts[at : at + count] for at in range(0, len(texts), count)]


def _own(row: Any, number: int, copy: int) -> Any:
    """A row whose image is no other row's."""
    return replace(row, sample=replace(row.sample, id=f"{row.sample.id}#{number}.{copy}"))


def _shared(row: Any) -> Any:
    """The row that `_own` was given."""
    return replace(row, sample=replace(row.sample, id=row.sample.id.rpartition("#")[0]))


def _gradients_of(sides: Mapping[str, RewardSide]) -> tuple[float, float]:
    """Largest gradient of the first batch, and largest difference of both ways on its samples."""
    ours, plain = sides["qvft"], sides["plain"]
    batch = ours.laid_out(ours.given[0])
    texts = [
        replace(text, row=_own(text.row, place, 0))
        for place, text in enumerate(ours.rollouts.texts_of(batch))
    ]
    collated = plain.rollouts.collate(texts, plain.given[0].seen(texts))
    alone = {name: one.to(plain.place) for name, one in collated.items()}
    alone |= {name: batch[name] for name in ("texts", "tokens")}
    gradients = []
    for side, one in ((ours, batch), (plain, alone)):
        side.loss(one).backward()
        named = side.module.model.named_parameters()
        gradients.append({name: p.grad.clone() for name, p in named if p.grad is not None})
        side.optimizer.zero_grad()
    difference = max(float((gradients[1][n] - one).abs().max()) for n, one in gradients[0].items())
    return max(float(one.abs().max()) for one in gradients[0].values()), difference
