"""Alignment losses of BLIP-2: contrastive (ITC), matching (ITM), captioning (ITG).

Each text row is one image-text pair, and each loss counts one item per pair (ITG: one per predicted
token), so that the counts of a step are known before its forward pass: `item_counts`. Divide each
sum once by its count over all processes and accumulated batches.

Negatives come from an all-gather over processes, but not from accumulated batches, whose
activations are gone. So with N processes, batch size B and gradient accumulation A, the contrastive
loss is the mean over A batches of N x B pairs, each with N x B - 1 negatives. N x B may be split
among processes in any way without changing the result; A may not.

Shape letters: I images and N pairs of this process; J images and G pairs of all processes;
P patches, Q query tokens, T text tokens, E embedding width.
Source: BLIP-2, arXiv 2301.12597, section 3.2; LAVIS, lavis/models/blip2_models/blip2_qformer.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import Blip2ForConditionalGeneration

from qvft.models.alignment.heads import AlignmentHeads
from qvft.models.alignment.pairs import GatheredPairs, Pairs, gather_pairs, gathered, matching_pairs
from qvft.models.alignment.qformer_states import (
    generation_logits,
    image_embeddings,
    matching_logits,
    text_embeddings,
)
from qvft.models.alignment.scoring import similarity
from qvft.models.sharded_weights import local_scalar

OBJECTIVES = ("itc", "itm", "itg")
LABEL_SMOOTHING = 0.1
"""Label smoothing of ITC and ITG. Source: LAVIS, as above, and Qformer.py in the same folder."""
_NEVER = -1e4
"""Added to the logit of a match, which must not be drawn: cosines over the lowest temperature
differ by at most 2,000, so that the largest weight always belongs to a candidate."""


class LossSum(NamedTuple):
    """Sum of a loss over `count` items; float32 () and long ()."""

    total: Tensor
    count: Tensor  # type: ignore[assignment]  # shadows tuple.count, unused


def contrastive_loss(logits: Tensor, matches: Tensor) -> Tensor:
    """Sum over rows of the cross-entropy against targets spread evenly over the matches.

    Args:
        logits: (N, G) similarities over temperature.
        matches: (N, G) bool, one or more per row.
    """
    matched = matches / matches.sum(dim=1, keepdim=True)
    # A batch may have no pairs.
    targets = (1 - LABEL_SMOOTHING) * matched + LABEL_SMOOTHING / max(1, logits.shape[1])
    return cross_entropy(logits, targets.to(logits.dtype), reduction="sum")


def hard_negatives(logits: Tensor, matches: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Samples one non-matching candidate per row by the softmax of its logits.

    By inverse transform sampling from `uniform`, so that a row's draw does not depend on its
    process.

    Args:
        logits: (N, G).
        matches: (N, G) bool, never drawn.
        uniform: (N,) in [0, 1).

    Returns:
        Candidates (N,), and (N,) bool whether the row had a candidate.
    """
    if matches.shape[1] == 0:  # no pairs in the global batch
        return matches.new_zeros(0, dtype=torch.long), matches.new_zeros(0)
    weights = (logits.detach().double() + _NEVER * matches).softmax(dim=1) * ~matches
    cumulative = weights.cumsum(dim=1)
    aimed = uniform.to(cumulative)[:, None] * cumulative[:, -1:]
    drawn = torch.searchsorted(cumulative, aimed, right=True)[:, 0]
    # The last candidate with a weight, in case rounding goes past it.
    last = (weights > 0).long().mul(torch.arange(1, weights.shape[1] + 1).to(drawn)).amax(1) - 1
    return drawn.minimum(last.clamp(min=0)), (~matches).any(dim=1)


def item_counts(pairs: Pairs, objectives: Collection[str]) -> dict[str, int]:
    """Number of items per objective in a batch, without a forward pass.

    The trainer sums them over processes and accumulated batches and divides each loss sum once.
    """
    rows = len(pairs.image_index)
    tokens = int(pairs.text_mask[:, 1:].sum())
    return {name: tokens if name == "itg" else rows for name in objectives}


def alignment_losses(
    model: Blip2ForConditionalGeneration,
    heads: AlignmentHeads,
    pairs: Pairs,
    *,
    features: Tensor,
    states: Tensor,
    objectives: Collection[str],
    seed: int,
) -> dict[str, LossSum]:
    """Alignment losses of this process's pairs, by objective.

    Each pair is contrasted with all; a hard negative text per image and a hard negative image per
    text are sampled; each text is predicted from its image. Collective: every process must call it.

    Args:
        features: (I, P, width) ViT features.
        states: (I, Q, D) from `query_states`, shared with the language loss.
        seed: of hard negatives, which depend only on it and on the images of the batch.
    """
    losses: dict[str, LossSum] = {}
    if "itc" in objectives or "itm" in objectives:
        world = gather_pairs(pairs)
        matches = matching_pairs(world.pairs)[world.rows]
        # Without ITC the similarities only weight the hard negatives.
        with torch.set_grad_enabled("itc" in objectives and torch.is_grad_enabled()):
            image_logits, text_logits = _similarities(model, heads, pairs, world, states)
        if "itc" in objectives:
            both = contrastive_loss(image_logits, matches) + contrastive_loss(text_logits, matches)
            losses["itc"] = LossSum(both / 2, _count(len(matches), both))
        if "itm" in objectives:
            uniform = _uniform(world.pairs, seed)[:, world.rows].to(features.device)
            texts = hard_negatives(image_logits, matches, uniform[0])
            images = hard_negatives(text_logits, matches, uniform[1])
            losses["itm"] = _matching_loss(
                model, heads, world, features, negative_texts=texts, negative_images=images
            )
    if "itg" in objectives:
        losses["itg"] = _generation_loss(model, heads, pairs, features)
    return losses


def _similarities(
    model: Blip2ForConditionalGeneration,
    heads: AlignmentHeads,
    pairs: Pairs,
    world: GatheredPairs,
    states: Tensor,
) -> tuple[Tensor, Tensor]:
    """Similarities over temperature, (N, G) each: image to all texts, and text to all images."""
    if heads.training:
        heads.clamp_temperature_()
    images = image_embeddings(heads, states)
    texts = text_embeddings(model, heads, input_ids=pairs.input_ids, text_mask=pairs.text_mask)
    all_images, all_texts = gathered(images, world.images), gathered(texts, world.texts)
    of_images = similarity(images, all_texts)[pairs.image_index]
    of_texts = similarity(all_images, texts).T[:, world.pairs.image_index]
    temperature = local_scalar(heads.temperature)
    return of_images / temperature, of_texts / temperature


def _matching_loss(
    model: Blip2ForConditionalGeneration,
    heads: AlignmentHeads,
    world: GatheredPairs,
    features: Tensor,
    *,
    negative_texts: tuple[Tensor, Tensor],
    negative_images: tuple[Tensor, Tensor],
) -> LossSum:
    """Binary cross-entropy of each pair, of its image with a wrong text, and of its text with a
    wrong image.

    A pair's item is the mean of the three; of fewer if it has no negative text (or image) in the
    batch.
    """
    everything = gathered(features, world.images)
    rows = torch.arange(len(world.pairs.image_index), device=features.device)[world.rows]
    wrong_text, has_text = negative_texts
    wrong_image, has_image = negative_images
    whose = world.pairs.image_index
    images = torch.cat([whose[rows], whose[rows][has_text], whose[wrong_image][has_image]])
    texts = torch.cat([rows, wrong_text[has_text], rows[has_image]])
    logits = matching_logits(
        model,
        heads,
        features=everything[images],
        input_ids=world.pairs.input_ids[texts],
        text_mask=world.pairs.text_mask[texts],
    )
    local = torch.arange(len(rows), device=rows.device)
    owners = torch.cat([local, local[has_text], local[has_image]])
    labels = (torch.arange(len(owners), device=rows.device) < len(rows)).long()
    cases = 1 + has_text.long() + has_image.long()
    losses = cross_entropy(logits, labels, reduction="none") / cases[owners]
    return LossSum(losses.sum(), _count(len(rows), losses))


def _generation_loss(
    model: Blip2ForConditionalGeneration, heads: AlignmentHeads, pairs: Pairs, features: Tensor
) -> LossSum:
    """Cross-entropy of each text token but the first, given the image and the preceding tokens."""
    logits = generation_logits(
        model,
        heads,
        features=features[pairs.image_index],
        input_ids=pairs.input_ids,
        text_mask=pairs.text_mask,
    )
    predicted = pairs.text_mask[:, 1:].bool()
    loss = cross_entropy(
        logits[:, :-1][predicted].float(),
        pairs.input_ids[:, 1:][predicted],
        reduction="sum",
        label_smoothing=LABEL_SMOOTHING,
    )
    return LossSum(loss, predicted.sum())


def _uniform(pairs: Pairs, seed: int) -> Tensor:
    """Two draws in [0, 1) per pair, (2, G) float64 on the CPU."""
    # int64 sums wrap around in the same way everywhere
    mixed = seed * 1_000_003 + int(pairs.image_ids[pairs.image_index].sum())
    generator = torch.Generator().manual_seed(mixed % 2**63)
    return torch.rand(2, len(pairs.image_index), generator=generator, dtype=torch.float64)


def _count(items: int, like: Tensor) -> Tensor:
    return torch.tensor(items, device=like.device)


def combined_loss(
    losses: Mapping[str, LossSum], weights: Mapping[str, float], counts: Mapping[str, Tensor | int]
) -> Tensor:
    """Weighted sum of the losses, each divided by its item count over the whole step."""
    parts = [weights[name] * losses[name].total / counts[name] for name in losses]
    return torch.stack(parts).sum()
