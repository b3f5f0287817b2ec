"""Log-probability of each supervised token: logits at labelled positions alone, in chunks.

Shape letters: I images, B rows, L row length, N supervised positions, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from qvft.models.forward_stages import embed_rows, encode_prompts, logits_of
from qvft.models.packed import Packing, hidden_at

IGNORED = -100
LOGIT_ROWS = 512
"""Positions per chunk of logits: with OPT's vocabulary of 50,304 and the gradient, 600 KB each in
float32."""


class SupervisedTokens(NamedTuple):
    """The supervised tokens of a batch, row by row.

    Attributes:
        losses: (N,) cross-entropy of each, which is minus its log-probability, at least float32.
        hits: (N,) whether it is the most likely token.
        row: (N,) its row, ascending.
        count: (B,) number of each row's.
    """

    losses: Tensor
    hits: Tensor
    row: Tensor
    count: Tensor  # type: ignore[assignment]  # shadows tuple.count, unused


def supervised_tokens(
    model: PreTrainedModel,
    rows: Mapping[str, Tensor],
    *,
    images: Tensor,
    image_index: Tensor,
    attention_mask: Tensor,
    labels: Tensor,
    temperature: float = 1.0,
    never: Sequence[int] = (),
) -> SupervisedTokens:
    """Cross-entropy of each supervised token.

    Args:
        rows: inputs of `forward_stages.embed_rows`, and their packing, if any.
        attention_mask, labels: (B, L); labels are -100 at positions without loss.
        never: tokens of probability 0.
    """
    embeds = embed_rows(model, rows, images=images, image_index=image_index)
    next_labels = labels[:, 1:]
    supervised = next_labels != IGNORED
    # The last column predicts nothing; positions index all columns.
    where = torch.zeros_like(labels, dtype=torch.bool)
    where[:, :-1] = supervised
    hidden = hidden_at(
        model,
        embeds,
        attention_mask,
        where,
        Packing.of(rows),
        images=images,
        image_index=image_index,
        prompts=encode_prompts(model, rows, images=images, image_index=image_index),
    )
    losses, hits = token_losses(model, hidden, next_labels[supervised], temperature, never)
    return SupervisedTokens(losses, hits, supervised.nonzero()[:, 0], supervised.sum(dim=1))


def token_losses(
    model: PreTrainedModel,
    hidden: Tensor,
    targets: Tensor,
    temperature: float = 1.0,
    never: Sequence[int] = (),
) -> tuple[Tensor, Tensor]:
    """Cross-entropy (N,) of each target (N,), at least float32; and (N,) whether it is the most
    likely token. `hidden` are the (N, D) inputs of the language-model head.

    Logits are computed in chunks of `LOGIT_ROWS` positions and recomputed for the gradient, so that
    the full (N, V) logits are never in memory.
    """
    parts = list(zip(hidden.split(LOGIT_ROWS), targets.split(LOGIT_ROWS), strict=True))
    if len(parts) == 1:
        return _token_losses(model, hidden, targets, temperature, never)
    found = [
        checkpoint(_token_losses, model, *part, temperature, never, use_reentrant=False)
        for part in parts
    ]
    losses, hits = zip(*found, strict=True)
    return torch.cat(losses), torch.cat(hits)


def _token_losses(
    model: PreTrainedModel,
    hidden: Tensor,
    targets: Tensor,
    temperature: float,
    never: Sequence[int],
) -> tuple[Tensor, Tensor]:
    logits = logits_of(model, hidden)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    hits = logits.detach().argmax(dim=-1) == targets
    if temperature != 1.0:
        logits = logits / temperature
    if never:
        logits = logits.index_fill(1, torch.tensor(never, device=logits.device), -torch.inf)
    return cross_entropy(logits, targets, reduction="none"), hits
