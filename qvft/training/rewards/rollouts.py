"""Rollouts: samples texts for the rows of a step, scores them, and builds the batches to learn.

Shape letters: P prompts, K samples per prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from qvft.data.collate import Collator
from qvft.data.prompt import TokenRow
from qvft.data.rows import FILLER
from qvft.data.token_stats import encode
from qvft.errors import UserError
from qvft.inference.reward_function import RewardFunction, rewards_of
from qvft.inference.sample import never_sampled, sample_rows
from qvft.inference.sampled import Sampled
from qvft.models.distributed import all_gather_object
from qvft.models.forward_stages import encode_features
from qvft.recipe.reward import Reward
from qvft.training.objectives.alignment_losses import LossSum
from qvft.training.objectives.language import vision_features
from qvft.training.recovery.out_of_memory import is_out_of_memory
from qvft.training.rewards.advantages import advantages, spread, weighted, without_spread
from qvft.training.rewards.collate import GivenBatch, LearntText, NumberedRow, SampleCollator
from qvft.training.rewards.held_out import degeneration
from qvft.training.rewards.log_probs import KnownLogProbs, TokenLogProbs

NOTHING_LEARNT = 1e-12
"""Largest advantage, up to rounding, of a group without spread."""


class Logged:
    """Sums and counts of what is logged, by name."""

    def __init__(self) -> None:
        self.sums: dict[str, tuple[float, float]] = {}

    def add(self, name: str, total: float, count: float) -> None:
        before = self.sums.get(name, (0.0, 0.0))
        self.sums[name] = before[0] + total, before[1] + count


class Rollouts:
    """Samples, rewards and advantages of a phase.

    Args:
        model: its weights now are the start, from which the KL divergence is measured.
        max_new_tokens: longest sample by kind of row.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        collator: Collator,
        functions: Mapping[str, RewardFunction],
        reward: Reward,
        *,
        max_new_tokens: Mapping[str, int],
        seed: int,
    ) -> None:
        self.model, self.collator, self.reward = model, collator, reward
        self.max_new_tokens, self.seed = max_new_tokens, seed
        self.functions = {name: functions[name] for name in reward.funcs}
        self.collate = SampleCollator(collator)
        self._log_probs = KnownLogProbs(
            TokenLogProbs(model, reward.temperature, never_sampled(collator.template)),
            self.collate,
            when_sampled=reward.num_iterations > 1 or reward.kl_in_reward > 0,
            at_start=reward.kl_in_reward > 0 or reward.kl_in_loss > 0,
        )
        self._texts: list[LearntText] = []
        self._batches: list[dict[str, Tensor]] = []
        self._prompts_at_once = 1_000_000

    def texts_of(self, batch: Mapping[str, Tensor]) -> list[LearntText]:
        """The texts of a batch that `batches` returned."""
        return [self._texts[place] for place in batch["text_index"].tolist()]

    def batches(
        self, given: Sequence[GivenBatch], *, step: int, trainer_state: Any
    ) -> tuple[list[dict[str, Tensor]], dict[str, LossSum]]:
        """The batches of a step, and what is logged of new samples.

        Samples are new every `num_iterations` steps, and the same in the steps between. A failure
        of a reward function is raised in all processes.
        """
        generation, iteration = divmod(step, self.reward.num_iterations)
        if iteration and self._batches:
            return [dict(batch) for batch in self._batches], {}
        self.model.eval()
        logged, problem = Logged(), None
        self._texts, self._batches = [], []
        try:
            self._batches = [
                self._batch_of(one, generation, trainer_state, logged) for one in given
            ]
        except UserError as error:
            problem = error  # raised in all processes, which would wait for this one
        found = all_gather_object((problem, list(logged.sums)))
        for failed, _ in found:
            if failed is not None:
                raise failed
        sums: dict[str, LossSum] = {}
        for name in dict.fromkeys(name for _, names in found for name in names):
            total, count = logged.sums.get(name, (0.0, 0.0))
            place = self.model.device
            sums[name] = LossSum(
                torch.tensor(total, device=place), torch.tensor(count, device=place)
            )
        return [dict(batch) for batch in self._batches], sums

    def _batch_of(
        self, given: GivenBatch, generation: int, trainer_state: Any, logged: Logged
    ) -> dict[str, Tensor]:
        """The batch of samples of a batch's rows, with their advantages, and of references."""
        reward, rows = self.reward, given.asked
        if not rows:
            return self._collated(given, [], count=0, tokens=0)
        states = self.encoded(given.tensors)
        groups = self.sampled(given, states, generation, reward.num_generations)
        samples = [sample for group in groups for sample in group]
        shape = len(groups), reward.num_generations
        rewards = self._scored(samples, trainer_state, logged).view(shape)
        logged.add("reward", float(rewards.nansum()), int((~rewards.isnan()).sum()))
        drawn = [
            LearntText(
                sample.number,
                sample.row,
                TokenRow((*sample.prompt_ids, *sample.ids), len(sample.prompt_ids)),
                0.0,
            )
            for sample in samples
        ]
        texts = self._log_probs(drawn, given)
        if reward.kl_in_reward:
            terms = [(text.old - text.ref).double() for text in texts]  # type: ignore[operator]
            divergence = torch.stack([one.sum() for one in terms])
            logged.add("kl", float(divergence.sum()), sum(map(len, terms)))
            rewards = rewards - reward.kl_in_reward * divergence.view(shape)
        greedy = None
        if reward.advantage == "greedy":
            found = self.sampled(given, states, generation, 0)
            greedy = self._scored([text for (text,) in found], trainer_state, Logged())
        values = advantages(rewards, reward.advantage, greedy=greedy, is_scaled=reward.is_scaled)
        group_std = spread(rewards)
        logged.add("reward_group_std", float(group_std.nansum()), int((~group_std.isnan()).sum()))
        logged.add("frac_reward_zero_std", float(without_spread(rewards).sum()), len(rewards))
        for name, (total, count) in degeneration(samples).items():
            logged.add(name, total, count)
        kept = [
            replace(text, advantage=value)
            for text, value in zip(texts, values.flatten().tolist(), strict=True)
            # Without advantage and KL term, nothing is learnt from a text.
            if abs(value) > NOTHING_LEARNT or reward.kl_in_loss
        ]
        if reward.lm:
            kept += self._references(rows)
        tokens = sum(len(sample.ids) for sample in samples)
        return self._collated(given, kept, count=len(samples), tokens=tokens)

    def encoded(self, batch: Mapping[str, Tensor]) -> Tensor:
        """What the rows of each image share, from its pixels or features."""
        with torch.no_grad():
            seen = vision_features(self.model, batch.get("pixel_values"), batch.get("features"))
            return encode_features(self.model, seen)

    def sampled(
        self, given: GivenBatch, states: Tensor, generation: int, count: int
    ) -> list[list[Sampled]]:
        """Samples of each row; the number of prompts at once is halved when memory runs out."""
        rows = given.asked
        while True:
            try:
                return sample_rows(
                    self.model,
                    self.collator,
                    rows,
                    states=states,
                    image_index=[given.image_of(row) for _, row in rows],
                    count=count,
                    max_new_tokens=self.max_new_tokens,
                    temperature=self.reward.temperature,
                    seed=(self.seed, generation),
                    prompts_at_once=self._prompts_at_once,
                )
            except (RuntimeError, MemoryError) as error:
                prompts = min(self._prompts_at_once, len(rows))
                if not is_out_of_memory(error) or prompts < 2:
                    raise
                self._prompts_at_once = prompts // 2

    def _scored(self, samples: Sequence[Sampled], trainer_state: Any, logged: Logged) -> Tensor:
        """(N,) float64 weighted rewards of samples, on the CPU."""
        further = {
            "trainer_state": trainer_state,
            "log_extra": lambda column, values: None,
            "log_metric": lambda name, value: logged.add(name, float(value), 1),
        }
        found = {
            name: rewards_of(function, samples, further)
            for name, function in self.functions.items()
        }
        for name, values in found.items():
            known = [value for value in values if value is not None]
            logged.add(f"rewards/{name}/mean", sum(known), len(known))
        return weighted(found, self.reward.funcs, len(samples))

    def _references(self, rows: Sequence[NumberedRow]) -> list[LearntText]:
        """Every caption of an image, and a question's most frequent answer."""
        template = self.collator.template
        return [
            LearntText(number, row, encode(replace(row, target=target), template))
            for number, row in rows
            for target in (row.references if row.kind == "caption" else (row.target,))
        ]

    def _collated(
        self, given: GivenBatch, texts: list[LearntText], *, count: int, tokens: int
    ) -> dict[str, Tensor]:
        """A batch of texts, with the numbers of all samples and of their tokens; of one without
        loss where nothing is learnt, since every process runs every pass.
        """
        if not texts:
            _, row = given.rows[0]
            texts = [LearntText(FILLER, row, encode(row, self.collator.template), 0.0)]
        built = self.collate(texts, given.seen(texts))
        place = len(self._texts)
        self._texts += texts
        built |= {
            "texts": torch.tensor(count),
            "tokens": torch.tensor(tokens),
            "text_index": torch.arange(place, place + len(texts)),
        }
        return {name: value.to(self.model.device) for name, value in built.items()}
