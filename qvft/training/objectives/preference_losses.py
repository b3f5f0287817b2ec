"""Preference losses (DPO and its successors) of a pair's log-probabilities, as trl names them.

Shape letters: P pairs.

Source of each formula: trl 1.16, `DPOTrainer._compute_loss`; the papers are named beside them. A
test holds every loss to trl's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from qvft.recipe.preference import Preference

SFT = "sft"
"""The chosen text's language loss: a mean over tokens, so it is no loss of a pair."""


class PairLogps(NamedTuple):
    """Log-probabilities of each pair's texts, nats, and their lengths; all (P,).

    Attributes:
        chosen, rejected: of the model that is trained.
        ref_chosen, ref_rejected: of the reference.
        chosen_tokens, rejected_tokens: supervised tokens.
    """

    chosen: Tensor
    rejected: Tensor
    ref_chosen: Tensor
    ref_rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor


def pair_losses(weights: Mapping[str, float], logps: PairLogps, settings: Preference) -> Tensor:
    """Weighted sum of a pair's losses (P,); `sft` is none of them."""
    losses = [weight * pair_loss(name, logps, settings) for name, weight in weights.items()]
    return torch.stack(losses).sum(dim=0)


def pair_loss(name: str, logps: PairLogps, settings: Preference) -> Tensor:
    """The loss `name` of each pair (P,); raises ValueError if there is none of that name."""
    beta, smoothing = settings.beta, settings.label_smoothing
    chosen_ratio = logps.chosen - logps.ref_chosen
    rejected_ratio = logps.rejected - logps.ref_rejected
    chosen, rejected = (_score(ratio, settings) for ratio in (chosen_ratio, rejected_ratio))
    margin = beta * (chosen - rejected)
    if name == "sigmoid":  # DPO, arXiv 2305.18290, equation 7
        return -logsigmoid(margin)
    if name == "hinge":  # SLiC, arXiv 2305.10425; RSO, arXiv 2309.06657
        return torch.relu(1 - margin)
    if name == "ipo":  # arXiv 2310.12036, equation 17; per token, as its authors do
        return (_per_token(chosen, rejected, logps) - 1 / (2 * beta)) ** 2
    if name == "robust":  # arXiv 2403.00409
        clean, flipped = logsigmoid(margin), logsigmoid(-margin)
        return (smoothing * flipped - (1 - smoothing) * clean) / (1 - 2 * smoothing)
    if name == "exo_pair":  # arXiv 2402.00856, equation 16
        return torch.sigmoid(margin) * (logsigmoid(margin) - math.log1p(-smoothing)) + (
            torch.sigmoid(-margin) * (logsigmoid(-margin) - math.log(smoothing))
        )
    if name == "nca_pair":  # arXiv 2402.05369
        return -(
            logsigmoid(beta * chosen_ratio)
            + 0.5 * logsigmoid(-beta * chosen_ratio)
            + 0.5 * logsigmoid(-beta * rejected_ratio)
        )
    if name == "bco_pair":  # arXiv 2404.04656, without its running mean
        return -logsigmoid(beta * chosen_ratio) - logsigmoid(-beta * rejected_ratio)
    if name == "sppo_hard":  # arXiv 2405.00675, equation 4.7 with probabilities 1 and 0
        return (chosen_ratio - 0.5 / beta) ** 2 + (rejected_ratio + 0.5 / beta) ** 2
    if name == "apo_zero":  # arXiv 2408.06266, equation 7
        return 1 - torch.sigmoid(beta * chosen_ratio) + torch.sigmoid(beta * rejected_ratio)
    if name == "apo_down":  # arXiv 2408.06266, equation 8
        margin = beta * (chosen_ratio - rejected_ratio)
        return torch.sigmoid(beta * chosen_ratio) + 1 - torch.sigmoid(margin)
    if name == "discopop":  # arXiv 2406.08414, equation 5
        share = torch.sigmoid(margin / settings.discopop_tau)
        return -logsigmoid(margin) * (1 - share) + torch.exp(-margin) * share
    if name == "sigmoid_norm":  # Tülu 3, arXiv 2411.15124: DPO per token
        return -logsigmoid(beta * _per_token(chosen, rejected, logps))
    raise ValueError(f"no preference loss is called {name!r}")


def rewards(logps: PairLogps, beta: float) -> tuple[Tensor, Tensor]:
    """Implicit rewards (P,) of chosen and rejected texts: beta times the log ratio.

    Source: DPO, arXiv 2305.18290, section 4.
    """
    return beta * (logps.chosen - logps.ref_chosen), beta * (logps.rejected - logps.ref_rejected)


def _per_token(chosen: Tensor, rejected: Tensor, logps: PairLogps) -> Tensor:
    """Difference (P,) of the scores, each per token of its text."""
    per_chosen = chosen / logps.chosen_tokens.clamp(min=1)
    return per_chosen - rejected / logps.rejected_tokens.clamp(min=1)


def _score(ratio: Tensor, settings: Preference) -> Tensor:
    """Derivative of the f-divergence at each log ratio (P,), without its constant.

    Source: f-DPO, arXiv 2309.16240, table 1.
    """
    kind, alpha = settings.f_divergence_type, settings.f_alpha_divergence_coef
    if kind == "forward_kl":
        return 1 - torch.exp(-ratio)
    if kind == "js_divergence":
        return math.log(2) + logsigmoid(ratio)
    if kind == "alpha_divergence" and abs(alpha - 1) >= 1e-6:
        # Clamped where float32 would overflow, as trl does.
        return (torch.exp(torch.clamp((alpha - 1) * ratio, max=80.0)) - 1) / (alpha - 1)
    return ratio
