"""Reward objective: policy-gradient losses (RLOO, GRPO, Dr. GRPO, DAPO; clipped), KL and language
losses of one forward pass, without dropout.

Shape letters: I images, B texts, L row length, N tokens of texts.

Source of the losses: trl 1.16, `RLOOTrainer._compute_loss`, `GRPOTrainer._compute_loss`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from qvft.data.collate import IGNORED
from qvft.recipe.reward import Reward
from qvft.training.objectives.alignment_losses import LossSum
from qvft.training.objectives.language import language_outputs, tokens_of
from qvft.training.objectives.weighted import LANGUAGE, WithoutDropout

REWARD, KL = "reward", "kl"


class RewardObjective(WithoutDropout):
    """Losses of sampled texts with their advantages, beside the references of the same images.

    Without dropout samples and losses are those of one model.

    Args:
        max_length: most tokens of a sample.
        never: tokens that are not sampled.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        reward: Reward,
        *,
        max_length: int,
        never: tuple[int, ...] = (),
    ) -> None:
        super().__init__(model)
        self.reward, self.max_length, self.never = reward, max_length, never
        weights = {REWARD: 1.0, KL: reward.kl_in_loss, LANGUAGE: reward.lm}
        self.weights = {name: weight for name, weight in weights.items() if weight > 0}

    def forward(self, **batch: Tensor) -> dict[str, Any]:
        """Losses of a batch of `rewards.collate.SampleCollator`; of any other batch, and in
        evaluation mode, the output of `LanguageModelling`.

        Args:
            batch: inputs as `LanguageModelling`; and is_sample (B,) bool, False at references;
                advantages (B,); old_logps, ref_logps (B, L) log-probability of each label when it
                was sampled, and at the phase's start; texts, tokens (): numbers of samples and of
                their tokens, with those that are not in the batch because nothing is learnt from
                them.

        Returns:
            `losses`: reward, kl and lm, each a `LossSum`; `metrics`: kl and the share of clipped
            ratios.
        """
        if not self.training or "is_sample" not in batch:
            return language_outputs(tokens_of(self.model, batch))
        found = tokens_of(self.model, batch, temperature=self.reward.temperature, never=self.never)
        supervised = batch["labels"][:, 1:] != IGNORED
        of_sample = batch["is_sample"][found.row]
        row = found.row[of_sample]
        tokens = TextTokens(row, found.count * batch["is_sample"])
        logps = -found.losses[of_sample]
        old = logps.detach()
        if "old_logps" in batch:
            old = batch["old_logps"][:, 1:][supervised][of_sample]
        total, clipped = policy_loss(
            logps,
            old,
            batch["advantages"],
            tokens,
            loss_type=self.reward.loss,
            clip_range=self.reward.clip_range,
        )
        divisor = self._divisor(batch)
        losses = {REWARD: LossSum(total, divisor)}
        clips = torch.tensor(clipped.numel(), device=clipped.device)
        metrics = {"clip_ratio/region_mean": LossSum(clipped.float().sum(), clips)}
        if KL in self.weights:
            terms = kl_terms(logps, old, batch["ref_logps"][:, 1:][supervised][of_sample])
            losses[KL] = LossSum(reduced(terms, tokens, self.reward.loss), divisor)
            metrics["kl"] = LossSum(terms.detach().sum(), tokens.count.sum())
        if LANGUAGE in self.weights:
            losses[LANGUAGE] = LossSum(found.losses[~of_sample].sum(), (~of_sample).sum())
        return {"losses": losses, "metrics": metrics}

    def _divisor(self, batch: Mapping[str, Tensor]) -> Tensor:
        """What the reward's and the KL term's sums are divided by."""
        if self.reward.loss == "dapo":
            return batch["tokens"]
        factor = self.max_length if self.reward.loss == "dr_grpo" else 1
        return batch["texts"] * factor

    def counts(self, batches: Sequence[Mapping[str, Tensor]]) -> dict[str, int]:
        """Divisor of each loss in these batches of this process; with the language loss, whose
        items are the tokens of the references."""
        total = dict.fromkeys(self.weights, 0)
        for batch in batches:
            references = (batch["labels"][~batch["is_sample"]] != IGNORED).sum()
            for name in total:
                divisor = references if name == LANGUAGE else self._divisor(batch)
                total[name] += int(divisor)
        return total


class TextTokens(NamedTuple):
    """Tokens of a batch's texts, text by text.

    Attributes:
        row: (N,) the text of each token.
        count: (B,) tokens per text.
    """

    row: Tensor
    count: Tensor  # type: ignore[assignment]  # shadows tuple.count, unused


def policy_loss(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    tokens: TextTokens,
    *,
    loss_type: str,
    clip_range: tuple[float, float],
) -> tuple[Tensor, Tensor]:
    """Loss sum () of texts, to be divided as `reduced` says, and (B,) or (N,) whether the ratio of
    probabilities was clipped.

    Args:
        logps, old_logps: (N,) log-probability of each token under the model, and when it was
            sampled; nats.
        advantages: (B,).
        loss_type: `rloo` has one ratio per text, the others one per token.
    """
    ratio = logps - old_logps
    if loss_type == "rloo":
        ratio = per_text(ratio, tokens)
    else:
        advantages = advantages[tokens.row]
    ratio = ratio.exp()
    low, high = clip_range
    losses = -torch.min(ratio * advantages, ratio.clamp(low, high) * advantages)
    clipped = ((ratio < low) & (advantages < 0)) | ((ratio > high) & (advantages > 0))
    total = losses.sum() if loss_type == "rloo" else reduced(losses, tokens, loss_type)
    return total, clipped.detach()


def kl_terms(logps: Tensor, old_logps: Tensor, ref_logps: Tensor) -> Tensor:
    """(N,) estimate of the KL divergence to the reference per token.

    Times the ratio of probabilities, whose gradient makes that of the estimate unbiased, also where
    the ratio is 1.

    Source: Schulman 2020, "Approximating KL divergence", k3; DeepSeek-V3.2, arXiv 2512.02556;
    trl 1.16, `GRPOTrainer` with `use_bias_correction_kl`.
    """
    difference = ref_logps - logps
    return (logps - old_logps).exp() * (difference.exp() - difference - 1)


def reduced(values: Tensor, tokens: TextTokens, loss_type: str) -> Tensor:
    """Sum () of values per token (N,), of which `grpo` takes each text's mean first.

    Its divisor is the number of texts with `grpo`, that times the maximum length with `dr_grpo`,
    and the number of tokens with `dapo`.
    """
    if loss_type == "grpo":
        return (per_text(values, tokens) / tokens.count.clamp(min=1)).sum()
    return values.sum()


def per_text(values: Tensor, tokens: TextTokens) -> Tensor:
    """(B,) sum of each text's values (N,)."""
    return values.new_zeros(len(tokens.count)).index_add(0, tokens.row, values)
