"""Metrics from embeddings instead of generated text: retrieval and zero-shot classification.

Each item's scores are in `predictions.jsonl`, so that two evaluations can be compared without a
model. An image's caption row has the scores of the image and of all its captions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from qvft.evaluation.likelihoods import likelihood_groups
from qvft.evaluation.metric import CorpusCounts, GroupScores, ScoreInfo, ScoreValue, mean_score
from qvft.evaluation.metrics.answers import NORMALISATION
from qvft.evaluation.metrics.retrieval import CUTOFFS, DEFINITION
from qvft.evaluation.rows import PredictionRow
from qvft.evaluation.stats import FloatArray, percentile_interval, resampled_sums

RETRIEVAL, ZERO_SHOT = "retrieval", "zero_shot"
WAYS = ("image_to_text", "text_to_image")
SUFFIXES = ("", "_reranked")
ZERO_SHOT_NAME = "zero_shot_accuracy"
ZERO_SHOT_DEFINITION = (
    "zero_shot_accuracy/v2: share of the items with one of the classes as their reference, both "
    f"{NORMALISATION}, whose image is nearest to the prompts of that class, among those of all "
    "classes; nothing is generated."
)


def recall_name(way: str, cutoff: int, suffix: str) -> str:
    """Name of a recall in reports."""
    return f"{way}_recall_at_{cutoff}{suffix}"


def recall_metric(
    rows: Sequence[PredictionRow], name: str, items: Mapping[int, float], *, how: str
) -> ScoreValue:
    """Recall in percent with its interval over images.

    Args:
        items: by number of a caption row: for `image_to_text` 1 where a text of the image is among
            the best, else 0; for `text_to_image` the share of its captions whose image is.
        how: ranking of the candidates, for the definition.
    """
    definition = f"{DEFINITION.rstrip('.')}; {how}."
    if name.startswith(WAYS[0]):
        return mean_score(rows, ScoreInfo(name), items, definition=definition)
    # Each caption is a query, and images may have more or fewer of them.
    counts = np.array(
        [[round(v * len(rows[i].references)), len(rows[i].references)] for i, v in items.items()],
        dtype=np.float64,
    )
    sums = resampled_sums(counts, [rows[index].image for index in items])
    interval = None if sums is None else percentile_interval(_percent(sums))
    value = float(_percent(counts.sum(axis=0)))
    corpus = CorpusCounts(counts, _percent)
    return ScoreValue(name, "percent", definition, value, items, interval, corpus)


def zero_shot_metric(rows: Sequence[PredictionRow], items: Mapping[int, float]) -> ScoreValue:
    """Accuracy in percent of items scored 1 or 0."""
    return mean_score(rows, ScoreInfo(ZERO_SHOT_NAME), items, definition=ZERO_SHOT_DEFINITION)


def stored_groups(
    rows: Sequence[PredictionRow], per_item: Sequence[Mapping[str, float | str]]
) -> dict[str, GroupScores]:
    """Metrics of embeddings and likelihoods restored from an evaluation's items, by name.

    Args:
        per_item: parallel to the rows, `scores` of their lines in `predictions.jsonl`.
    """
    recalls = []
    for way in WAYS:
        for cutoff in CUTOFFS:
            for suffix in SUFFIXES:
                name = recall_name(way, cutoff, suffix)
                items = _items(per_item, name)
                if items:
                    recalls.append(recall_metric(rows, name, items, how="as it was ordered there"))
    groups = likelihood_groups(rows, per_item)
    if recalls:
        texts = sum(len(rows[index].references) for index in recalls[0].items)
        groups[RETRIEVAL] = GroupScores(texts, recalls)
    chosen = _items(per_item, ZERO_SHOT_NAME)
    if chosen:
        groups[ZERO_SHOT] = GroupScores(len(chosen), [zero_shot_metric(rows, chosen)])
    return groups


def _items(per_item: Sequence[Mapping[str, float | str]], name: str) -> dict[int, float]:
    return {index: float(found[name]) for index, found in enumerate(per_item) if name in found}


def _percent(sums: FloatArray) -> FloatArray:
    return np.asarray(100 * (sums[..., 0] / sums[..., 1]))
