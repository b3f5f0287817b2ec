"""Scores of several texts per prompt, by the reward function of a name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

from qvft.data.rows import Row
from qvft.dotted_names import import_dotted, is_dotted
from qvft.errors import DataError, RecipeError
from qvft.evaluation.rewards import reward_functions
from qvft.inference.reward_function import UNTRAINED, rewards_of
from qvft.inference.sampled import Sampled
from qvft.log import get_logger
from qvft.recipe.reward import kinds_of, require_known

Scores = list[list[float | None]]
"""For each row a score per text; None: the text is not scored."""

logger = get_logger("qvft.pairs")
WHERE = "command line: --metric"


def require_metric(metric: str) -> None:
    """Raises RecipeError unless it is one of `recipe.reward.FUNCS`, or a function that is there."""
    try:
        require_known(metric)
    except ValueError as error:
        raise RecipeError(str(error), where=WHERE) from None
    if is_dotted(metric):
        import_dotted(metric, cast(type, Callable), where=WHERE)


def scorable(rows: Sequence[Row], metric: str, *, against_reference: bool = False) -> list[Row]:
    """The rows of the kinds that a metric scores; a warning counts the others.

    Args:
        against_reference: each row needs a reference, whatever the metric.

    Raises:
        DataError: there is no such row, or one lacks the references that the metric needs.
    """
    if not rows:
        raise DataError(
            "data without captions and questions",
            where=WHERE,
            expected="texts to score against: pairs alone have none",
            do="name data that has them with --data",
        )
    kinds = kinds_of(metric)
    found = [row for row in rows if row.kind in kinds]
    if not found:
        raise DataError(
            f"{metric} of data without {kinds[0]}s",
            where=WHERE,
            do="name another metric, or other data",
        )
    if len(found) < len(rows):
        logger.warning(
            "%d of %d rows are left out: %s scores %ss alone",
            len(rows) - len(found),
            len(rows),
            metric,
            kinds[0],
        )
    least = 2 if metric == "vqa_accuracy" else int(against_reference or not is_dotted(metric))
    lacking = next((row for row in found if len(row.references) < least), None)
    if lacking is not None:
        raise DataError(
            f"row {lacking.id} has {len(lacking.references) or 'no'} reference"
            + ("s" if not lacking.references else ""),
            where=WHERE,
            expected=f"{least} or more for {metric}",
            do="use exact_match or token_f1" if lacking.references else "name --data with them",
        )
    return found


def score_texts(rows: Sequence[Row], texts: Sequence[Sequence[str]], metric: str) -> Scores:
    """The score of each text of each row; CIDEr's document frequencies are those of the references
    of all rows.

    Args:
        metric: of `recipe.reward.FUNCS`, or the dotted name of a function of your own.

    Raises:
        RecipeError: as `reward_function.rewards_of`.
    """
    function = reward_functions([metric], rows, stop_token=False)[metric]
    flat = [
        Sampled(number, row, row.question or "", (), (), text, True)
        for number, (row, own) in enumerate(zip(rows, texts, strict=True))
        for text in own
    ]
    found = rewards_of(replace(function, where=f"{WHERE} {metric}"), flat, UNTRAINED)
    scores = iter(found)
    return [[next(scores) for _ in own] for own in texts]
