"""Collates pairs of chosen and rejected texts, with reference log-probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from qvft.data.collate import Collator
from qvft.data.rows import FILLER, Row


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
