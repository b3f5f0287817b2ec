"""Conclusions of an evaluation in plain sentences: whether the model uses the image, whether it
beats the most frequent answer, and whether its query tokens still differ.

A difference counts if its paired 95 % interval, over whole images, does not hold 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from qvft.evaluation.comparison import Comparison
from qvft.evaluation.report.table import figure, headline, signed
from qvft.evaluation.rows import PredictionRow
from qvft.evaluation.scoring import Scores, main_scores
from qvft.evaluation.stats import paired_difference
from qvft.setup.query_similarity import collapse_warning

FEW_IMAGES = 100
"""Below this a model that uses the image a little may not show it: the interval of a share of one
in two is then 10 points or more to either side."""

HARDLY = 0.03
"""A gain from the image that is below this, by the upper end of its interval, is hardly one."""

_TRY = (
    "Try higher learning rates (train.learning_rate), more epochs or trainable.vision=full, and "
    "look whether the texts can be told without the image"
)
_COLLAPSED = "Its query tokens have collapsed (see below), which higher learning rates make worse"


def verdicts(
    rows: Sequence[PredictionRow],
    scores: Scores,
    *,
    blind: Scores | None = None,
    frequent: Scores | None = None,
    query_similarity: float | None = None,
) -> list[str]:
    """The sentences; none where nothing was compared.

    Args:
        blind: scores of the same rows with the images shuffled among the texts.
        frequent: scores of the most frequent answers to the questions among the rows, in order.
        query_similarity: mean cosine between what the query tokens become.
    """
    collapse = [] if query_similarity is None else collapse_warning(query_similarity)
    sentences = []
    for kind in ("question", "caption"):
        chosen = [index for index, row in enumerate(rows) if row.kind == kind]
        images = [rows[index].image for index in chosen]
        mine = [scores.per_item[index] for index in chosen]
        if blind is not None:
            theirs = [blind.per_item[index] for index in chosen]
            found = _compared(scores, mine, theirs, images)
            advice = _COLLAPSED if collapse else _TRY
            sentences += [_of_the_image(kind, found, len(set(images)), advice)] if found else []
        if kind == "question" and frequent is not None:
            found = _compared(scores, mine, frequent.per_item, images)
            sentences += [_of_answers(found)] if found else []
    return [*sentences, *collapse]


def retention_verdicts(found: Mapping[str, Comparison]) -> list[str]:
    """A sentence per data set on its most telling metric."""
    sentences = []
    for name, comparison in found.items():
        for metric in headline(dict.fromkeys(comparison.metrics, 0.0))[:1]:
            one, unit = comparison.metrics[metric], comparison.units[metric]
            numbers = f"{metric.replace('_', ' ')} {figure(one.b, unit)} before, "
            numbers += f"{figure(one.a, unit)} after tuning"
            if one.interval is None or not one.excludes_zero:
                begins = f"Whether it forgot something about {name} cannot be told"
            else:
                lost = one.difference > 0 if one.lower_is_better else one.difference < 0
                begins = f"It {'lost' if lost else 'gained'} on {name}"
            if one.interval is not None:
                ends = " to ".join(signed(end, unit) for end in one.interval)
                numbers += f", a difference of {signed(one.difference, unit)} ({ends})"
            sentences.append(f"{begins}: {numbers}.")
    return sentences


class _Compared(NamedTuple):
    """A metric of the same items with and without something.

    Attributes:
        here, there: both values as text.
        difference: as text, with its 95 % interval.
        low, high: ends of the interval; of percent from 0 to 1.
    """

    name: str
    here: str
    there: str
    difference: str
    low: float
    high: float


def _of_the_image(kind: str, found: _Compared, images: int, advice: str) -> str:
    numbers = (
        f"{found.name} is {found.here} with the right images and {found.there} with the images "
        f"shuffled; the difference is {found.difference}"
    )
    if found.low > 0:
        return f"The model uses the image for {kind}s: {numbers}."
    few = images < FEW_IMAGES
    if found.high < 0 or (found.high < HARDLY and not few):
        return f"This model hardly uses the image for {kind}s: {numbers}. {advice}."
    begins = f"Whether this model uses the image for {kind}s cannot be told from these data"
    more = f"{images} images tell little: evaluate on more. " if few else ""
    return f"{begins}: {numbers}. {more}If it does not: {advice[0].lower()}{advice[1:]}."


def _of_answers(found: _Compared) -> str:
    baseline = "than always giving the most frequent training answer"
    if found.low <= 0 <= found.high:
        begins = f"Whether it answers better {baseline} cannot be told from these data"
    else:
        begins = f"It answers {'better' if found.low > 0 else 'worse'} {baseline}"
    numbers = f"{found.name} is {found.here} against {found.there}"
    return f"{begins}: {numbers}, a difference of {found.difference}."


def _compared(
    scores: Scores,
    mine: Sequence[Mapping[str, float | str]],
    theirs: Sequence[Mapping[str, float | str]],
    images: Sequence[str],
) -> _Compared | None:
    """The items' most telling metric; None where no item has one on both sides, or there is only
    one image.
    """
    for name in main_scores():
        chosen = [i for i in range(len(mine)) if name in mine[i] and name in theirs[i]]
        if not chosen or len(chosen) != sum(name in item for item in mine):
            continue
        unit = scores.units[name]
        factor = 100 if unit == "percent" else 1
        a, b = ([factor * float(side[index][name]) for index in chosen] for side in (mine, theirs))
        paired = paired_difference(a, b, clusters=[images[index] for index in chosen])
        if paired.interval is None:
            return None
        here, there = (figure(sum(side) / len(side), unit) for side in (a, b))
        ends = " to ".join(signed(end, unit) for end in paired.interval)
        difference = f"{signed(paired.difference, unit)} (95 % interval {ends})"
        low, high = (end / factor for end in paired.interval)
        return _Compared(name.replace("_", " "), here, there, difference, low, high)
    return None
