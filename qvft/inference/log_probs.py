"""Log-probabilities of texts under the model: of generated texts, and of candidates to rank.

An image is encoded once, and its prompt goes through the decoder once per pass, since the texts of
a prompt are packed behind it. Shape letters: U units, B texts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from transformers import PreTrainedModel

from qvft.data.collate import Collator
from qvft.data.prompt import TokenRow
from qvft.inference.decode import Prompted
from qvft.models.supervised_tokens import IGNORED, supervised_tokens
from qvft.setup.packer import packer_for

RankBy = Literal["sum", "mean"]
PACKED_TOKENS = 1024
"""Maximum tokens of a prompt with its texts; with more texts the prompt is decoded again."""
PASS_TOKENS = 16_384
"""Maximum tokens of a pass, prompts counted once per text: 170 MB of embeddings in float32 for
OPT-2.7B."""


class LogProb(NamedTuple):
    """Log-probability of a text with its stop token, in nats, and the number of its tokens."""

    sum: float
    tokens: int

    @property
    def mean(self) -> float:
        """Per token."""
        return self.sum / self.tokens


class Candidate(NamedTuple):
    """A candidate text; `probability` is its share among the candidates, see `ranked`."""

    text: str
    log_prob: LogProb
    probability: float


@dataclass(frozen=True)
class Scoring:
    """What is computed besides texts.

    Attributes:
        log_probs: of each generated text.
        rank_by: value by which the candidates of a row are ranked; None: they are not.
        generate: False: the text of a row is its most likely candidate.
        abstain_below: texts with a lower probability are marked; None: none.
    """

    log_probs: bool = False
    rank_by: RankBy | None = None
    generate: bool = True
    abstain_below: float | None = None


@dataclass(frozen=True)
class _Unit:
    """Texts of a prompt, as token ids, that are packed together."""

    place: int
    row: Prompted
    targets: Sequence[Sequence[int]]

    @property
    def tokens(self) -> int:
        """Tokens of its padded rows."""
        return len(self.targets) * (len(self.row.ids) + max(map(len, self.targets)))


def ranked(
    texts: Sequence[str], log_probs: Sequence[LogProb], *, by: RankBy = "sum"
) -> tuple[Candidate, ...]:
    """Candidates, the most likely first; of equal ones the first in the list.

    Probabilities are the softmax over the candidates of the value that ranks them.
    """
    values = [getattr(one, by) for one in log_probs]
    best = max(values)
    weights = [math.exp(value - best) for value in values]
    order = sorted(range(len(texts)), key=lambda place: -values[place])
    total = math.fsum(weights)
    return tuple(Candidate(texts[i], log_probs[i], weights[i] / total) for i in order)


def text_log_probs(
    model: PreTrainedModel,
    collator: Collator,
    batch: Sequence[Prompted],
    texts: Sequence[Sequence[str]],
) -> list[list[LogProb]]:
    """Log-probabilities of texts of each row, teacher-forced and without any setting of decoding.

    A text is tokenized as a training target and ends with the stop token, which is counted.

    Args:
        model: in evaluation mode.
        batch: rows with their prompts and encoded images.
        texts: of each row.
    """
    found: list[list[LogProb]] = [[] for _ in batch]
    for units in _passes(list(_units(collator, batch, texts))):
        values = iter(_log_probs(model, collator, units))
        for unit in units:
            found[unit.place] += [next(values) for _ in unit.targets]
    return found


def _units(
    collator: Collator, batch: Sequence[Prompted], texts: Sequence[Sequence[str]]
) -> Iterator[_Unit]:
    for place, (row, wanted) in enumerate(zip(batch, texts, strict=True)):
        part: list[list[int]] = []
        room = PACKED_TOKENS - len(row.ids)
        for ids in collator.template.encode_targets(row.kind, row.prompt, wanted):
            if part and sum(map(len, part)) + len(ids) > room:
                yield _Unit(place, row, part)
                part = []
            part.append(ids)
        if part:
            yield _Unit(place, row, part)


def _passes(units: Sequence[_Unit]) -> Iterator[list[_Unit]]:
    """Units of one pass: up to `PASS_TOKENS`, at least one."""
    part: list[_Unit] = []
    for unit in units:
        if part and sum(one.tokens for one in part) + unit.tokens > PASS_TOKENS:
            yield part
            part = []
        part.append(unit)
    if part:
        yield part


@torch.no_grad()
def _log_probs(model: PreTrainedModel, collator: Collator, units: Sequence[_Unit]) -> list[LogProb]:
    """Log-probability of each text of the units, each of which is treated as an image."""
    template, device = collator.template, model.device
    index = [number for number, unit in enumerate(units) for _ in unit.targets]
    tokens = [
        TokenRow((*unit.row.ids, *target), len(unit.row.ids))
        for unit in units
        for target in unit.targets
    ]
    # Where the decoder reads what the Q-Former makes of a prompt, it is read once per unit.
    apart = collator.reader is not None and template.start_id is None
    packing = replace(
        collator,
        packer=packer_for(model.config, shares=True),
        reader=None if apart else collator.reader,
    )
    rows = packing.token_batch(tokens, index, [units[number].row.prompt for number in index])
    labels = torch.full_like(rows["input_ids"], IGNORED)
    for place, row in enumerate(tokens):
        start = row.target_start if template.start_id is None else 1
        span = slice(start, start + len(row.ids) - row.target_start)
        labels[place, span] = rows["input_ids"][place, span]
    if apart:
        rows |= collator.read([unit.row.prompt for unit in units])
        rows["qformer_rows"] = torch.tensor(index)
    rows = {name: value.to(device) for name, value in rows.items()}
    found = supervised_tokens(
        model,
        rows,
        images=torch.stack([unit.row.image.states for unit in units]),
        image_index=torch.tensor(index, device=device),
        attention_mask=rows["attention_mask"],
        labels=labels.to(device),
    )
    sums = torch.zeros(len(tokens), dtype=torch.float64, device=device)
    sums = sums.index_add(0, found.row, -found.losses.double())
    return [LogProb(*pair) for pair in zip(sums.tolist(), found.count.tolist(), strict=True)]
