"""Log-probabilities of texts under the model: of generated texts, and of candidates to rank.

An image is encoded once, and its prompt goes through the decoder once per pass, since the texts of
a prompt are packed behind it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from transformers import PreTrainedModel

from qvft.data.collate import Collator
from qvft.data.prompt import TokenRow
from qvft.inference.decode import Prompted
from qvft.models.finite_outputs import require_finite
from qvft.models.supervised_tokens import IGNORED, supervised_tokens
from qvft.setup.packer import packer_for

RankBy = Literal["sum", "mean"]
PASS_TOKENS = 16_384
"""Maximum tokens of a pass, prompts counted once per text: 170 MB of embeddings in float32 for
OPT-2.7B."""
ROW_TOKENS = 512
"""Maximum tokens of a prompt and the texts behind it, whose attention to one another is wasted (see
`setup.packer`). With more texts the prompt goes through the decoder again."""


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

    Raises:
        FailedError: a log-probability is NaN or infinite.
    """
    written = [
        (place, TokenRow((*row.ids, *target), len(row.ids)))
        for place, (row, wanted) in enumerate(zip(batch, texts, strict=True))
        for target in collator.template.encode_targets(row.kind, row.prompt, wanted)
    ]
    found: list[list[LogProb]] = [[] for _ in batch]
    count = max(1, PASS_TOKENS // max((len(row.ids) for _, row in written), default=1))
    for start in range(0, len(written), count):
        part = written[start : start + count]
        values = _log_probs(model, collator, batch, part)
        for (place, _), value in zip(part, values, strict=True):
            found[place].append(value)
    return found


@torch.no_grad()
def _log_probs(
    model: PreTrainedModel,
    collator: Collator,
    batch: Sequence[Prompted],
    written: Sequence[tuple[int, TokenRow]],
) -> list[LogProb]:
    """Log-probability of each text, written behind the prompt of a row of the batch."""
    template, device = collator.template, model.device
    places: list[int] = []
    owner: list[int] = []
    room = 0
    for place, row in written:
        size = len(row.ids) - row.target_start
        if not places or place != places[-1] or size > room:
            places.append(place)
            room = ROW_TOKENS - row.target_start
        room -= size
        owner.append(len(places) - 1)
    prompts = [batch[place].prompt for place in places]
    # Where the decoder reads what the Q-Former makes of a prompt, that is made once per row.
    apart = collator.reader is not None and template.start_id is None
    packed = replace(
        collator,
        packer=packer_for(model.config, shares=True),
        reader=None if apart else collator.reader,
    )
    tokens = [row for _, row in written]
    rows = packed.token_batch(tokens, owner, [prompts[place] for place in owner])
    if apart:
        rows |= {**collator.read(prompts), "qformer_rows": torch.tensor(owner)}
    labels = torch.full_like(rows["input_ids"], IGNORED)
    for number, row in enumerate(tokens):
        span = template.target_span(row)
        labels[number, span] = rows["input_ids"][number, span]
    rows = {name: value.to(device) for name, value in rows.items()}
    found = supervised_tokens(
        model,
        rows,
        images=torch.stack([batch[place].image.states for place in places]),
        image_index=torch.tensor(owner, device=device),
        attention_mask=rows["attention_mask"],
        labels=labels.to(device),
    )
    sums = torch.zeros(len(tokens), dtype=torch.float64, device=device)
    sums = sums.index_add(0, found.row, -found.losses.double())
    require_finite(sums, "the log-probabilities")
    return [LogProb(*pair) for pair in zip(sums.tolist(), found.count.tolist(), strict=True)]
