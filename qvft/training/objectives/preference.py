"""Preference objective: losses of pairs of a chosen and a rejected text (DPO and its successors),
and the collator of pairs with reference log-probabilities.

Shape letters: I images, P pairs, L row length, N supervised tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from qvft.data.collate import IGNORED, Collator
from qvft.data.rows import FILLER, Row
from qvft.models.supervised_tokens import SupervisedTokens
from qvft.recipe.preference import Preference
from qvft.training.objectives.alignment_losses import LossSum
from qvft.training.objectives.language import language_outputs, tokens_of
from qvft.training.objectives.preference_losses import SFT, PairLogps, pair_losses, rewards
from qvft.training.objectives.weighted import WithoutDropout

PREFERENCE = "preference"
"""Name of the losses of pairs, whose weights are within their sum."""


class PreferenceObjective(WithoutDropout):
    """Losses of pairs against reference log-probabilities, and the language loss of the chosen.

    Without dropout model and reference are the same function of their weights.

    """

    rows_are = "pairs"

    def __init__(self, model: PreTrainedModel, settings: Preference) -> None:
        super().__init__(model)
        weights = settings.weights
        language = {SFT: weights.pop(SFT)} if SFT in weights else {}
        self.of_pairs, self.settings = weights, settings
        self.weights = {**({PREFERENCE: 1.0} if self.of_pairs else {}), **language}

    def counts(self, batches: Sequence[Mapping[str, Tensor]]) -> dict[str, int]:
        """Pairs, and supervised tokens of the chosen texts."""
        supervised = [(batch["labels"] != IGNORED).sum(dim=1)[0::2] for batch in batches]
        tokens = torch.cat(supervised)
        found = {PREFERENCE: int((tokens > 0).sum()), SFT: int(tokens.sum())}
        return {name: found[name] for name in self.weights}

    def forward(self, *, reference_logps: Tensor | None = None, **batch: Tensor) -> dict[str, Any]:
        """Losses of a batch of `PreferenceCollator`, or, in evaluation mode, of rows without pairs.

        Args:
            reference_logps: (P, 2) of chosen and rejected texts; None: the model's own as it is.
            batch: inputs of `LanguageModelling.forward`, in which row 2 p is the chosen text of
                pair p, and the next one the rejected.

        Returns:
            In training mode `losses` and `metrics`, see `WeightedObjective`. In evaluation mode
            without `reference_logps` the output of `LanguageModelling`. Otherwise `loss_sum` (),
            `count` (), and per pair (P,): `row_loss`, `row_count` 1, `exact` whether the chosen
            text has the higher reward, `margin` by how much.
        """
        tokens = tokens_of(self.model, batch)
        if not self.training and reference_logps is None:
            return language_outputs(tokens)
        logps = self._pair_logps(tokens, reference_logps)
        losses = pair_losses(self.of_pairs, logps, self.settings)
        real = logps.chosen_tokens > 0  # a padding row has no text
        losses = losses * real
        chosen, rejected = (one.detach() for one in rewards(logps, self.settings.beta))
        if not self.training:
            return {
                "loss_sum": losses.sum(),
                "count": real.sum(),
                "row_loss": losses,
                "row_count": real.long(),
                "exact": chosen > rejected,
                "margin": chosen - rejected,
            }
        summed = {
            "rewards/chosen": chosen,
            "rewards/rejected": rejected,
            "rewards/accuracies": (chosen > rejected).to(chosen.dtype),
            "rewards/margins": chosen - rejected,
            "logps/chosen": logps.chosen.detach(),
            "logps/rejected": logps.rejected.detach(),
        }
        found = {PREFERENCE: LossSum(losses.sum(), real.sum())} if self.of_pairs else {}
        if SFT in self.weights:
            of_chosen = tokens.losses[tokens.row % 2 == 0]
            found[SFT] = LossSum(of_chosen.sum(), tokens.count[0::2].sum())
        return {
            "losses": found,
            "metrics": {
                name: LossSum((one * real).sum(), real.sum()) for name, one in summed.items()
            },
            "row_loss": losses.detach(),
        }

    def logps(self, **batch: Tensor) -> Tensor:
        """Log-probabilities (P, 2), nats, of the chosen and the rejected text of each pair."""
        return self._logps(tokens_of(self.model, batch))

    def _logps(self, tokens: SupervisedTokens) -> Tensor:
        logps = -tokens.losses
        if self.settings.ld_alpha is not None:
            start = tokens.count.cumsum(0) - tokens.count
            place = torch.arange(len(logps), device=logps.device) - start[tokens.row]
            shorter = tokens.count.view(-1, 2).amin(dim=1).repeat_interleave(2)
            logps = torch.where(place < shorter[tokens.row], logps, self.settings.ld_alpha * logps)
        return logps.new_zeros(len(tokens.count)).index_add(0, tokens.row, logps).view(-1, 2)

    def _pair_logps(self, tokens: SupervisedTokens, reference: Tensor | None) -> PairLogps:
        own = self._logps(tokens)
        reference = own.detach() if reference is None else reference.to(own)
        count = tokens.count.view(-1, 2)
        return PairLogps(
            own[:, 0], own[:, 1], reference[:, 0], reference[:, 1], count[:, 0], count[:, 1]
        )


class PairKey(NamedTuple):
    """What the log-probabilities of a pair depend on, besides weights and prompt template."""

    image: str
    sample: str
    view: int
    row: str
    question: str | None
    chosen: str
    rejected: str


def key_of(row: Row) -> PairKey:
    """The key of a pair's row."""
    assert row.rejected is not None, "a row of preference_rows"
    return PairKey(
        row.sample.image.name,
        row.sample.id,
        row.view,
        row.id,
        row.question,
        row.target,
        row.rejected,
    )


class PreferenceCollator:
    """Collates rows of pairs; each becomes two rows of the language batch, the chosen text first.

    Both share their image, and their prompt where an encoder or the Q-Former reads it. Rows without
    a rejected text are collated as they are, for evaluation.

    Args:
        reference: log-probabilities of chosen and rejected text by pair; None: not known yet.

    Returns of a call: what `collator` returns for the 2 P rows of P pairs, but row_index (P,); for
    a Q-Former that reads the question, its inputs once per pair and qformer_rows (2 P,) long, the
    pair of each row; with `reference`, reference_logps (P, 2), 0 at padding rows.
    """

    def __init__(
        self, collator: Collator, reference: Mapping[PairKey, tuple[float, float]] | None = None
    ) -> None:
        self.collator, self.reference = collator, reference

    def __call__(self, rows: Sequence[tuple[int, Row]]) -> dict[str, Tensor]:
        if all(row.rejected is None for _, row in rows):
            return self.collator(rows)
        texts: list[tuple[int, Row]] = []
        for number, row in rows:
            assert row.rejected is not None, "a batch has pairs or no pair"
            texts += [(number, row), (number, replace(row, target=row.rejected))]
        batch = self.collator(texts)
        batch["row_index"] = batch["row_index"][0::2]
        if self.collator.reader is not None and self.collator.template.start_id is None:
            for name in ("qformer_input_ids", "qformer_attention_mask"):
                batch[name] = batch[name][0::2]  # the Q-Former reads the question of a pair once
            batch["qformer_rows"] = torch.arange(len(rows)).repeat_interleave(2)
        if self.reference is not None:
            known = [
                (0.0, 0.0) if number == FILLER else self.reference[key_of(row)]
                for number, row in rows
            ]
            batch["reference_logps"] = torch.tensor(known, dtype=torch.float64)
        return batch
