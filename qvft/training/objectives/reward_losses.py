"""Policy-gradient losses of sampled texts: RLOO, GRPO, Dr. GRPO, DAPO, clipped; and the KL term.

Shape letters: B texts, N their tokens.

Source: trl 1.16, `RLOOTrainer._compute_loss`, `GRPOTrainer._compute_loss`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


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
