"""Both sides of the reward benchmark: qvft's sampling and updates, and those sample by sample.

Shape letters: I images, B rows, K samples per row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from qvft.benchmark.machine import backward_flops, idle_optimizer
from qvft.inference.sample import sample_rows
from qvft.inference.sampled import Sampled
from qvft.models.forward_stages import encode_features, encode_vision
from qvft.recipe.phases import PhasePlan
from qvft.training.activations import lean_activations
from qvft.training.arguments import recompute_activations
from qvft.training.objectives.alignment_losses import combined_loss
from qvft.training.objectives.reward import RewardObjective
from qvft.training.rewards.build import reward_objective, rollouts_of
from qvft.training.rewards.collate import GivenBatch, LearntText, NumberedRow
from qvft.training.rewards.rollouts import Rollouts
from qvft.training.training_run import TrainingRun


class RewardSide:
    """Sampling and updates of one way."""

    def __init__(
        self,
        work: TrainingRun,
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
        self.rollouts = kind(
            loaded.model,
            collator,
            made.functions,
            made.reward,
            max_new_tokens=made.max_new_tokens,
            seed=made.seed,
        )
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
            return self.rollouts.sampled(given, states, 0, self.rollouts.reward.num_generations)

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

    def flops(self) -> float:
        """FLOPs of all updates: of sampling, and of the forward and backward passes."""
        trained = [one for one in self.module.parameters() if one.requires_grad]
        for one in trained:  # torch's counter fails at a trained weight where there is no gradient
            one.requires_grad_(False)
        with FlopCounterMode(display=False) as sampling:
            laid = [self.laid_out(given) for given in self.given]
        for one in trained:
            one.requires_grad_(True)
        return sampling.get_total_flops() + backward_flops(self.loss, laid, self.optimizer)

    def laid_out(self, given: GivenBatch) -> dict[str, Tensor]:
        """The samples of a batch, scored and collated."""
        with self._autocast():
            (batch,), _ = self.rollouts.batches([given], step=0, trainer_state=None)
        return batch

    def _autocast(self) -> Any:
        return torch.autocast(self.place.type, dtype=torch.bfloat16, enabled=self.bf16)


class OneByOne(GivenBatch):
    """A batch in which every text has its image for itself."""

    def seen(self, texts: Sequence[LearntText]) -> dict[str, Tensor]:
        """The image of each text."""
        given = {row.sample.id for _, row in self.rows}  # of a text that only fills the batch up
        own = [
            self.image_of(text.row if text.row.sample.id in given else shared_image(text.row))
            for text in texts
        ]
        return {"pixel_values": self.tensors["pixel_values"][own]}


class PlainRollouts(Rollouts):
    """Samples each text by itself, from the image on."""

    def encoded(self, batch: Mapping[str, Tensor]) -> Tensor:
        """(B K, ...) states of the image of each sample."""
        index = batch["image_index"].repeat_interleave(self.reward.num_generations)
        with torch.no_grad():
            return encode_features(
                self.model, encode_vision(self.model, batch["pixel_values"][index])
            )

    def sampled(
        self, given: GivenBatch, states: Tensor, generation: int, count: int
    ) -> list[list[Sampled]]:
        """As `Rollouts.sampled`, of rows and images that occur once per sample."""
        copies = [
            (number * count + copy, own_image(row, number, copy))
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
            max_new_tokens=self.max_new_tokens,
            temperature=self.reward.temperature,
            seed=(self.seed, generation),
            prompts_at_once=len(copies),
        )
        texts = [text for (text,) in found]
        return [texts[at : at + count] for at in range(0, len(texts), count)]


def own_image(row: Any, number: int, copy: int) -> Any:
    """A row whose image is no other row's."""
    return replace(row, sample=replace(row.sample, id=f"{row.sample.id}#{number}.{copy}"))


def shared_image(row: Any) -> Any:
    """The row that `own_image` was given."""
    return replace(row, sample=replace(row.sample, id=row.sample.id.rpartition("#")[0]))
