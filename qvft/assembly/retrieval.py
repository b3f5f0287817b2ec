"""A run with alignment heads at work: retrieval of a split's captions, classes by prompts.

Shape letters: I images, M texts, Q query tokens, P patches, E embedding width, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from qvft.adapters.checkpoint import read_manifest
from qvft.assembly.alignment import TextBranch, saved_branch
from qvft.assembly.model import Loaded, run_recipe, trained_model
from qvft.assembly.opening import Opened
from qvft.data.sample import Sample
from qvft.evaluation.groups import GroupScores, Metric
from qvft.evaluation.metrics.retrieval import (
    CUTOFFS,
    DEFINITION,
    image_ranks,
    recall,
    text_ranks,
)
from qvft.evaluation.scoring import Scores
from qvft.evaluation.stats import bootstrap_mean
from qvft.models.alignment.scoring import class_embeddings, matching_scores, reranked, similarity
from qvft.models.alignment.states import image_embeddings, text_embeddings
from qvft.models.alignment.texts import encode_texts
from qvft.models.blip2 import encode_vision, query_states

GROUP = "retrieval"
PAIRS_AT_ONCE = 256
"""Pairs that matching scores together: their ViT-g features take 370 MB in float32."""


@dataclass(frozen=True)
class Aligned:
    """A model of a run with its alignment heads, in evaluation mode."""

    loaded: Loaded
    branch: TextBranch

    @torch.no_grad()
    def text_vectors(self, texts: Sequence[str], *, batch_size: int = 64) -> Tensor:
        """Unit vectors (M, E) float32."""
        parts = []
        for start in range(0, len(texts), batch_size):
            ids, mask = self.encode(texts[start : start + batch_size])
            parts.append(
                text_embeddings(self.loaded.model, self.branch.heads, input_ids=ids, text_mask=mask)
            )
        return torch.cat(parts)

    @torch.no_grad()
    def image_vectors(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors (I, Q, E) float32 and ViT features (I, P, width) of normalised images."""
        model = self.loaded.model
        features = encode_vision(model, pixels.to(model.device, model.dtype))
        return image_embeddings(self.branch.heads, query_states(model, features)), features

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokens of the text branch and their mask (M, T), on the model's device."""
        longest = self.branch.saved.max_text_tokens
        ids, mask = encode_texts(self.branch.tokenizer, texts, max_tokens=longest)
        return ids.to(self.loaded.model.device), mask.to(self.loaded.model.device)


def open_aligned(run_dir: Path | str, overrides: Sequence[str] = ()) -> Aligned:
    """Loads a finished run with its alignment heads.

    Raises:
        CheckpointError: no finished run is there, or it trained no heads.
        UserError: its base, or the checkpoint of its text branch, is not there.
    """
    run = Path(run_dir)
    recipe = run_recipe(run, list(overrides))
    loaded = trained_model(run, recipe)
    return Aligned(loaded, saved_branch(run / "adapter", recipe, loaded))


def classify(
    aligned: Aligned, images: Sequence[Image], names: Sequence[str], templates: Sequence[str]
) -> list[str]:
    """The class of each image whose prompts are nearest, without training on the classes.

    Args:
        names: the classes.
        templates: prompts in which `{}` stands once for the class; the direction of the mean over
            them is the class'.

    Raises:
        UserError: as `class_embeddings`.
    """
    classes = class_embeddings(names, templates, embed=aligned.text_vectors)
    vectors, _ = aligned.image_vectors(aligned.loaded.collator.normalise(images))
    return [names[index] for index in similarity(vectors, classes).argmax(dim=1).tolist()]


def retrieves(adapter: Path) -> bool:
    """Whether the heads of an adapter folder were trained to tell images and texts apart."""
    return "itc" in read_manifest(adapter).get("alignment", {}).get("objectives", ())


def retrieval_of_run(opened: Opened, loaded: Loaded, samples: Sequence[Sample]) -> GroupScores:
    """As `retrieval_group`, of a run that is loaded without its heads."""
    assert opened.home is not None
    branch = saved_branch(opened.home / "adapter", opened.recipe, loaded)
    recipe = opened.recipe
    return retrieval_group(
        Aligned(loaded, branch),
        samples,
        top=recipe.objectives.rerank,
        batch_size=recipe.eval.batch_size,
    )


def with_group(scores: Scores, group: GroupScores) -> Scores:
    """Scores with the figures of retrieval beside those of the texts."""
    metrics = group.metrics
    found = {metric.name: metric.interval for metric in metrics if metric.interval is not None}
    return replace(
        scores,
        n={**scores.n, GROUP: group.n},
        metrics={**scores.metrics, **{metric.name: metric.value for metric in metrics}},
        units={**scores.units, **{metric.name: metric.unit for metric in metrics}},
        definitions={
            **scores.definitions,
            **{metric.name: metric.definition for metric in metrics},
        },
        intervals={**scores.intervals, **found},
    )


@torch.no_grad()
def retrieval_group(
    aligned: Aligned, samples: Sequence[Sample], *, top: int, batch_size: int
) -> GroupScores:
    """Recall of captions for images and of images for captions, over all samples with captions.

    By contrast alone, and, where matching was trained, with each query's `top` best candidates
    ranked anew by matching.

    Args:
        batch_size: images, and texts, encoded together.
    """
    kept = [sample for sample in samples if sample.captions]
    texts = [caption for sample in kept for caption in sample.captions]
    owners = [place for place, sample in enumerate(kept) for _ in sample.captions]
    matches = "itm" in aligned.branch.saved.objectives
    vectors, features = _encoded(aligned, kept, batch_size=batch_size, with_features=matches)
    cosines = similarity(vectors, aligned.text_vectors(texts, batch_size=batch_size))
    names = [sample.image.name for sample in kept]
    metrics = _recalls(cosines, cosines, owners, names, suffix="", how="by cosine (ITC)")
    if features is not None:
        score = _matching(aligned, features, texts)
        rank = {"top": top, "batch_size": PAIRS_AT_ONCE}
        by_image = reranked(cosines, score=score, **rank)
        by_text = reranked(cosines.T, score=lambda t, i: score(i, t), **rank)
        how = f"by cosine (ITC), the {top} best of each ranked anew by matching (ITM)"
        metrics += _recalls(by_image, by_text.T, owners, names, suffix="_reranked", how=how)
    return GroupScores(len(texts), metrics)


def _encoded(
    aligned: Aligned, samples: Sequence[Sample], *, batch_size: int, with_features: bool
) -> tuple[Tensor, Tensor | None]:
    """Vectors (I, Q, E); ViT features (I, P, width) in host memory, as a set of them outgrows a
    GPU's."""
    vectors, features = [], []
    for start in range(0, len(samples), batch_size):
        sources = [sample.image for sample in samples[start : start + batch_size]]
        found, patches = aligned.image_vectors(aligned.loaded.collator.pixels(sources))
        vectors.append(found)
        if with_features:
            features.append(patches.cpu())
    return torch.cat(vectors), torch.cat(features) if with_features else None


def _matching(
    aligned: Aligned, features: Tensor, texts: Sequence[str]
) -> Callable[[Tensor, Tensor], Tensor]:
    """From numbers of images and of texts (N,) to matching scores (N,)."""
    input_ids, text_mask = aligned.encode(texts)
    model, heads = aligned.loaded.model, aligned.branch.heads

    def score(images: Tensor, chosen: Tensor) -> Tensor:
        return matching_scores(
            model,
            heads,
            features=features[images.cpu()].to(model.device),
            input_ids=input_ids[chosen],
            text_mask=text_mask[chosen],
        )

    return score


def _recalls(
    of_images: Tensor,
    of_texts: Tensor,
    owners: Sequence[int],
    names: Sequence[str],
    *,
    suffix: str,
    how: str,
) -> list[Metric]:
    """Recalls both ways of scores (I, M), those that rank texts and those that rank images."""
    to_text, _ = image_ranks(of_images.cpu().numpy(), owners)
    to_image, _ = text_ranks(of_texts.cpu().numpy(), owners)
    ways: list[tuple[str, Any, list[str]]] = [
        ("image_to_text", to_text, list(names)),
        ("text_to_image", to_image, [names[owner] for owner in owners]),
    ]
    metrics = []
    for way, ranks, clusters in ways:
        for cutoff in CUTOFFS:
            interval = bootstrap_mean((ranks < cutoff).astype(float).tolist(), clusters)
            metrics.append(
                Metric(
                    f"{way}_recall_at_{cutoff}{suffix}",
                    "percent",
                    f"{DEFINITION.rstrip('.')}; {how}.",
                    recall(ranks, cutoff),
                    {},
                    None if interval is None else (100 * interval[0], 100 * interval[1]),
                )
            )
    return metrics
