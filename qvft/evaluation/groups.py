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
from qvft.evaluation.answers import is_yes_no, parse_yes_no
from qvft.evaluation.metrics import exact, medical
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


def mean_in_percent(
    rows: Sequence[PredictionRow], name: str, items: Mapping[int, float], *, definition: str
) -> Metric:
    """The mean of the items' scores, which lie between 0 and 1; items are row numbers."""
    values = list(items.values())
    interval = bootstrap_mean(values, [rows[index].image for index in items])
    scaled = None if interval is None else (100 * interval[0], 100 * interval[1])
    return Metric(name, "percent", definition, 100 * sum(values) / len(values), items, scaled)


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


def _by_java(name: str) -> Callable[[Sequence[PredictionRow], Sequence[int]], GroupScores]:
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


def _vqa(rules: Rules) -> Callable[[Sequence[PredictionRow], Sequence[int]], GroupScores]:
    def group(rows: Sequence[PredictionRow], chosen: Sequence[int]) -> GroupScores:
        items = {
            i: vqa_accuracy(rows[i].prediction, rows[i].references, rules=rules) for i in chosen
        }
        definition = _VQA_DEFINITION.format(rules=rules)
        name = f"vqa_accuracy_{rules}"
        return GroupScores(len(chosen), [mean_in_percent(rows, name, items, definition=definition)])

    return group


def _medical(rows: Sequence[PredictionRow], chosen: Sequence[int]) -> GroupScores:
    items: dict[str, dict[int, float]] = {name: {} for name in medical.DEFINITIONS}
    outcomes: dict[int, dict[str, str]] = {}
    for index in chosen:
        row = rows[index]
        kind = medical.answer_type(row.references, row.meta)
        outcomes[index] = {"answer_type": kind}
        if kind == "open":
            items["open_exact_match"][index] = exact.exact_match(row.prediction, row.references)
            items["open_token_recall"][index] = medical.token_recall(row.prediction, row.references)
            items["open_token_f1"][index] = medical.token_f1(row.prediction, row.references)
            items["open_bleu_1"][index] = medical.bleu_1(row.prediction, row.references)
            continue
        items["closed_accuracy"][index] = medical.closed_correct(row.prediction, row.references)
        if is_yes_no(row.references):
            said = parse_yes_no(row.prediction)
            outcomes[index]["parsed"] = said
            items["closed_unparseable"][index] = float(said == "unparseable")
    items["accuracy"] = dict(sorted((items["closed_accuracy"] | items["open_exact_match"]).items()))
    return GroupScores(
        len(chosen),
        [
            mean_in_percent(rows, name, items[name], definition=definition)
            for name, definition in medical.DEFINITIONS.items()
            if items[name]
        ],
        outcomes,
    )


def _llava_med(rows: Sequence[PredictionRow], chosen: Sequence[int]) -> GroupScores:
    items = {}
    for index in chosen:
        row = rows[index]
        if medical.answer_type(row.references, row.meta) == "closed":
            correct = medical.closed_correct_llava_med(row.prediction, row.references[0])
            if correct is not None:
                items[index] = correct
    name, definition = "closed_accuracy_llava_med", medical.LLAVA_MED_DEFINITION
    metrics = [mean_in_percent(rows, name, items, definition=definition)] if items else []
    return GroupScores(len(items), metrics)


GROUPS: dict[
    str,
    tuple[
        Literal["caption", "question"],
        Callable[[Sequence[PredictionRow], Sequence[int]], GroupScores],
    ],
] = {
    "captions": ("caption", _captions),
    "meteor": ("caption", _by_java("METEOR")),
    "spice": ("caption", _by_java("SPICE")),
    "answers": ("question", _answers),
    "medical": ("question", _medical),
    "llava_med": ("question", _llava_med),
    "vqa_2017": ("question", _vqa("2017")),
    "vqa_2021": ("question", _vqa("2021")),
}


def misfit(rows: Sequence[PredictionRow], name: str) -> DataError | None:
    """Why a group of metrics cannot score these items; None: it can.

    Args:
        rows: their predictions are not looked at, so that it is known before any is made.
        name: of `GROUPS`.
    """
    kind, _ = GROUPS[name]
    chosen = [row for row in rows if row.kind == kind]
    if not chosen:
        return DataError(
            f"metrics {name!r} for data without {kind}s", do="name other metrics, or auto"
        )
    if name.startswith("vqa_"):
        other = next((row for row in chosen if len(row.references) != TEN_ANSWERS), None)
        if other is not None:
            return DataError(
                f"metrics {name!r}: question {other.id!r} has {len(other.references)} answers",
                expected=f"{TEN_ANSWERS} human answers for VQA accuracy",
                do="use the metrics `answers` instead",
            )
    if name == "llava_med" and not any(
        medical.answer_type(row.references, row.meta) == "closed" for row in chosen
    ):
        return DataError(
            f"metrics {name!r} for data without closed questions", do="name other metrics, or auto"
        )
    return None
