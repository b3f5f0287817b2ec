"""Caption metrics: BLEU, ROUGE_L, CIDEr, exact match, and METEOR by Java."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from qvft.evaluation.metric import (
    CorpusCounts,
    GroupScores,
    Metric,
    ScoreInfo,
    ScoreValue,
    Unit,
    mean_score,
)
from qvft.evaluation.metrics.answers import EXACT_MATCH, exact_match
from qvft.evaluation.metrics.bleu import bleu_of_counts
from qvft.evaluation.metrics.captions import score_captions
from qvft.evaluation.metrics.meteor import DEFINITION, meteor, meteor_command
from qvft.evaluation.rows import PredictionRow
from qvft.evaluation.stats import FloatArray, bootstrap_mean, percentile_interval, resampled_sums


def _caption_score(name: str, unit: Unit = "0..1", **shown: Any) -> ScoreInfo:
    definition = (
        f"{name}/coco-caption-1.2: as pycocoevalcap 1.2 computes it, on its PTB tokens of composed "
        f"text (Unicode NFC), from {unit.replace('..', ' to ')}."
    )
    return ScoreInfo(name, unit, definition, **{"table": None, "page": None, **shown})


# In the order of `score_captions` and of its BLEU counts.
_CAPTIONS = (
    *(_caption_score(f"Bleu_{n}", label=f"BLEU-{n}") for n in range(1, 4)),
    _caption_score("Bleu_4", label="BLEU-4", table=11, page=7),
    _caption_score("ROUGE_L", label="ROUGE-L", table=12, page=8),
    _caption_score("CIDEr", "0..10", main=5, table=10, page=6, breakdown=True),
)
_CAPTION_MATCH = ScoreInfo("caption_exact_match", "percent", EXACT_MATCH, table=9, page=91)


def _captions(rows: Sequence[PredictionRow], chosen: Sequence[int]) -> GroupScores:
    keys = {str(index): index for index in chosen}
    scores = score_captions(
        {key: rows[index].references for key, index in keys.items()},
        {key: rows[index].prediction for key, index in keys.items()},
    )
    images = [rows[index].image for index in chosen]
    sums = resampled_sums(scores.bleu_counts, images)
    bleu = None if sums is None else bleu_of_counts(sums)
    metrics = []
    for place, score in enumerate(_CAPTIONS):
        items = {keys[key]: value for key, value in scores.per_item[score.name].items()}
        corpus = None
        if score.name.startswith("Bleu"):
            interval = None if bleu is None else percentile_interval(bleu[:, place])
            corpus = CorpusCounts(scores.bleu_counts, _bleu_of_order(place))
        else:
            interval = bootstrap_mean(list(items.values()), images)
        value = scores.corpus[score.name]
        metrics.append(
            ScoreValue(score.name, score.unit, score.definition, value, items, interval, corpus)
        )
    matches = {i: exact_match(rows[i].prediction, rows[i].references) for i in chosen}
    metrics.append(mean_score(rows, _CAPTION_MATCH, matches))
    return GroupScores(len(chosen), metrics)


def _bleu_of_order(place: int) -> Callable[[FloatArray], FloatArray]:
    return lambda sums: np.asarray(bleu_of_counts(sums)[..., place])


_METEOR = ScoreInfo("METEOR", "0..1", DEFINITION, table=None, page=None)


def _meteor(rows: Sequence[PredictionRow], chosen: Sequence[int]) -> GroupScores:
    value, found = meteor(
        {str(index): rows[index].references for index in chosen},
        {str(index): rows[index].prediction for index in chosen},
    )
    items = {int(key): item for key, item in found.items()}
    score = ScoreValue(_METEOR.name, _METEOR.unit, _METEOR.definition, value, items, None)
    return GroupScores(len(items), [score])


CAPTION_METRICS = (
    Metric("captions", "caption", _captions, (*_CAPTIONS, _CAPTION_MATCH), auto=lambda rows: True),
    Metric(
        "meteor",
        "caption",
        _meteor,
        (_METEOR,),
        compared=False,  # no mean of its items, so without interval
        require_installed=lambda: meteor_command(),
    ),
)
