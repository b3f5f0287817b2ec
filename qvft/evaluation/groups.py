"""The groups of metrics by name, each from rows to values with intervals.

Items are scored on a scale of 0 to 1 (CIDEr 0 to 10); a value in percent is 100 times the mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from qvft.errors import DataError
from qvft.evaluation.metrics import exact, llava_med, medical, multimedeval
from qvft.evaluation.metrics.bleu import bleu_of_counts
from qvft.evaluation.metrics.captions import NAMES, score_captions
from qvft.evaluation.metrics.java import BY_JAVA
from qvft.evaluation.metrics.vqa import Rules, vqa_accuracy
from qvft.evaluation.rows import PredictionRow
from qvft.evaluation.stats import (
    FloatArray,
    bootstrap_mean,
    percentile_interval,
    resampled_sums,
)

TEN_ANSWERS = 10

_CAPTION_DEFINITION = (
    "{name}/coco-caption-1.2: as pycocoevalcap 1.2 computes it, on its PTB tokens, {range}."
)
_VQA_DEFINITION = (
    "vqa_accuracy_{rules}/v1: as the official VQA evaluator computes it under its rules of "
    "{rules}; each of ten human answers is left out in turn, three matches among the others do."
)


@dataclass(frozen=True)
class CorpusCounts:
    """What a figure is computed from that is not the mean of its items.

    Attributes:
        counts: (n, K) of each item.
        value: from sums over items (..., K) to the figure (...), in the metric's unit.
    """

    counts: FloatArray
    value: Callable[[FloatArray], FloatArray]


@dataclass(frozen=True)
class Metric:
    """A value over items, with what each of them got.

    `items` holds the score by row number; `interval` is in the unit of `value`; `corpus`, whose
    rows are those of `items`, is None where the value is the mean of the items' scores.
    """

    name: str
    unit: Literal["percent", "0..1", "0..10"]
    definition: str
    value: float
    items: Mapping[int, float]
    interval: tuple[float, float] | None
    corpus: CorpusCounts | None = None


@dataclass(frozen=True)
class GroupScores:
    """The metrics of a group, how many items it scored, and what else is known of an item."""

    n: int
    metrics: list[Metric]
    outcomes: dict[int, dict[str, str]] = field(default_factory=dict)


Group = Callable[[Sequence[PredictionRow], Sequence[int]], GroupScores]
"""From all rows and the numbers of those to score to the scores of a group."""


def mean_in_percent(
    rows: Sequence[PredictionRow], name: str, items: Mapping[int, float], *, definition: str
) -> Metric:
    """The mean of the items' scores, which lie between 0 and 1; items are row numbers."""
    return _mean(rows, name, items, definition=definition, unit="percent")


def _mean(
    rows: Sequence[PredictionRow],
    name: str,
    items: Mapping[int, float],
    *,
    definition: str,
    unit: Literal["percent", "0..1"],
) -> Metric:
    values, factor = list(items.values()), 100 if unit == "percent" else 1
    interval = bootstrap_mean(values, [rows[index].image for index in items])
    scaled = None if interval is None else (factor * interval[0], factor * interval[1])
    return Metric(name, unit, definition, factor * sum(values) / len(values), items, scaled)


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
    for place, name in enumerate(NAMES):
        items = {keys[key]: value for key, value in scores.per_item[name].items()}
        corpus = None
        if name.startswith("Bleu"):
            interval = None if bleu is None else percentile_interval(bleu[:, place])
            corpus = CorpusCounts(scores.bleu_counts, _bleu_of_order(place))
        else:
            interval = bootstrap_mean(list(items.values()), images)
        unit: Literal["0..1", "0..10"] = "0..10" if name == "CIDEr" else "0..1"
        scale = f"from {unit.replace('..', ' to ')}"
        definition = _CAPTION_DEFINITION.format(name=name, range=scale)
        value = scores.corpus[name]
        metrics.append(Metric(name, unit, definition, value, items, interval, corpus))
    matches = {i: exact.exact_match(rows[i].prediction, rows[i].references) for i in chosen}
    metrics.append(
        mean_in_percent(rows, "caption_exact_match", matches, definition=exact.DEFINITION)
    )
    return GroupScores(len(chosen), metrics)


def _bleu_of_order(place: int) -> Callable[[FloatArray], FloatArray]:
    return lambda sums: np.asarray(bleu_of_counts(sums)[..., place])


def _by_java(name: str) -> Group:
    """METEOR, whose corpus score is no mean and gets no interval, or SPICE, which is a mean."""

    def group(rows: Sequence[PredictionRow], chosen: Sequence[int]) -> GroupScores:
        value, found = BY_JAVA[name].score(
            {str(index): rows[index].references for index in chosen},
            {str(index): rows[index].prediction for index in chosen},
        )
        items = {int(key): item for key, item in found.items() if not math.isnan(item)}
        interval = None
        if name == "SPICE":
            value = sum(items.values()) / max(1, len(items))
            interval = bootstrap_mean(list(items.values()), [rows[index].image for index in items])
        definition = BY_JAVA[name].definition
        return GroupScores(len(items), [Metric(name, "0..1", definition, value, items, interval)])

    return group


def _answers(rows: Sequence[PredictionRow], chosen: Sequence[int]) -> GroupScores:
    matches = {i: exact.exact_match(rows[i].prediction, rows[i].references) for i in chosen}
    metric = mean_in_percent(rows, "exact_match", matches, definition=exact.DEFINITION)
    return GroupScores(len(chosen), [metric])


def _vqa(rules: Rules) -> Group:
    def group(rows: Sequence[PredictionRow], chosen: Sequence[int]) -> GroupScores:
        for index in chosen:
            if len(rows[index].references) != TEN_ANSWERS:
                raise DataError(
                    f"question {rows[index].id!r} has {len(rows[index].references)} answers",
                    expected=f"{TEN_ANSWERS} human answers for VQA accuracy",
                    do="use the metrics `answers` instead",
                )
        items = {
            i: vqa_accuracy(rows[i].prediction, rows[i].references, rules=rules) for i in chosen
        }
        definition = _VQA_DEFINITION.format(rules=rules)
        name = f"vqa_accuracy_{rules}"
        return GroupScores(len(chosen), [mean_in_percent(rows, name, items, definition=definition)])

    return group


def _medical(rows: Sequence[PredictionRow], chosen: Sequence[int]) -> GroupScores:
    scored: dict[int, dict[str, float]] = {}
    outcomes: dict[int, dict[str, str]] = {}
    for index in chosen:
        row, kind = rows[index], medical.answer_type(rows[index].references, rows[index].meta)
        scored[index], outcomes[index] = medical.item_scores(row.prediction, row.references, kind)
    return GroupScores(len(chosen), _means(rows, scored, medical.DEFINITIONS), outcomes)


def llava_med_group(candidates: llava_med.Candidates | None = None) -> Group:
    """LLaVA-Med's scores; open accuracy among them where there are candidates to choose from."""

    def group(rows: Sequence[PredictionRow], chosen: Sequence[int]) -> GroupScores:
        scored = {
            index: llava_med.item_scores(
                rows[index].prediction,
                rows[index].references[0],
                closed=medical.answer_type(rows[index].references, rows[index].meta) == "closed",
                candidates=candidates,
            )
            for index in chosen
        }
        return GroupScores(len(chosen), _means(rows, scored, llava_med.DEFINITIONS))

    return group


def _multimedeval(rows: Sequence[PredictionRow], chosen: Sequence[int]) -> GroupScores:
    scored = {
        index: multimedeval.item_scores(rows[index].prediction, rows[index].references[0])
        for index in chosen
    }
    metrics = _means(rows, scored, multimedeval.DEFINITIONS, unit="0..1")
    return GroupScores(len(chosen), metrics)


def _means(
    rows: Sequence[PredictionRow],
    scored: Mapping[int, Mapping[str, float | None]],
    definitions: Mapping[str, str],
    *,
    unit: Literal["percent", "0..1"] = "percent",
) -> list[Metric]:
    """The mean of each metric over the items that have it, in the order of the definitions."""
    metrics = []
    for name, definition in definitions.items():
        found = {index: scores.get(name) for index, scores in scored.items()}
        items = {index: value for index, value in found.items() if value is not None}
        if items:
            metrics.append(_mean(rows, name, items, definition=definition, unit=unit))
    return metrics


GROUPS: dict[str, tuple[Literal["caption", "question"], Group]] = {
    "captions": ("caption", _captions),
    "meteor": ("caption", _by_java("METEOR")),
    "spice": ("caption", _by_java("SPICE")),
    "answers": ("question", _answers),
    "medical": ("question", _medical),
    "llava_med": ("question", llava_med_group()),
    "multimedeval": ("question", _multimedeval),
    "vqa_2017": ("question", _vqa("2017")),
    "vqa_2021": ("question", _vqa("2021")),
}
