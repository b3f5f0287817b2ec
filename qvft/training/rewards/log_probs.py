"""Log-probabilities of sampled texts when they were sampled, and under the phase's first weights.

Shape letters: B texts, L row length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import PreTrainedModel

from qvft.data.collate import IGNORED
from qvft.training.objectives.language import tokens_of
from qvft.training.recovery.out_of_memory import in_halves
from qvft.training.rewards.collate import GivenBatch, LearntText, SampleCollator


class TokenLogProbs(nn.Module):
    """Log-probabilities (B, L) of each label of a batch, 0 elsewhere.

    A module, so that `torch.func.functional_call` can ask other weights.
    """

    def __init__(self, model: PreTrainedModel, temperature: float, never: Sequence[int]) -> None:
        super().__init__()
        self.model, self.temperature, self.never = model, temperature, never

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        labels = batch["labels"]
        found = tokens_of(self.model, batch, temperature=self.temperature, never=self.never)
        where = torch.zeros_like(labels, dtype=torch.bool)
        where[:, 1:] = labels[:, 1:] != IGNORED
        return found.losses.new_zeros(labels.shape).masked_scatter(where, -found.losses)


class KnownLogProbs:
    """Log-probabilities of texts that no gradient is needed for."""

    def __init__(
        self,
        log_probs: TokenLogProbs,
        collate: SampleCollator,
        *,
        when_sampled: bool,
        at_start: bool,
    ) -> None:
        self.log_probs, self.collate = log_probs.eval(), collate
        self.when_sampled, self.at_start = when_sampled, at_start
        self._start = {
            name: parameter.detach().clone()
            for name, parameter in (log_probs.named_parameters() if at_start else ())
            if parameter.requires_grad
        }

    def __call__(self, texts: list[LearntText], given: GivenBatch) -> list[LearntText]:
        """The texts with `old` and `ref`; in halves if they do not fit into memory."""
        if not (self.when_sampled or self.at_start):
            return texts
        return in_halves(lambda part: self._known(part, given), texts)

    @torch.no_grad()
    def _known(self, texts: list[LearntText], given: GivenBatch) -> list[LearntText]:
        device = self.log_probs.model.device
        batch = self.collate(texts, given.seen(texts))
        inputs = {name: value.to(device) for name, value in batch.items()}
        kept = batch["labels"] != IGNORED
        old = ref = None
        if self.when_sampled:
            old = self.log_probs(inputs).cpu()
        if self.at_start:
            ref = functional_call(self.log_probs, self._start, (inputs,)).cpu()
        return [
            replace(
                text,
                old=None if old is None else old[place][kept[place]],
                ref=None if ref is None else ref[place][kept[place]],
            )
            for place, text in enumerate(texts)
        ]
