"""Scores of several texts per prompt, by the name of a metric or of a function of the user's."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from typing import Any, cast

from qvft.data.prompt import Kind
from qvft.data.rows import Row
from qvft.dotted_names import import_dotted, is_dotted
from qvft.errors import DataError, RecipeError
from qvft.evaluation.metrics.captions import score_tokens
from qvft.evaluation.metrics.exact import exact_match
from qvft.evaluation.metrics.medical import token_f1
from qvft.evaluation.metrics.tokenize import tokenize
from qvft.evaluation.metrics.vqa import vqa_accuracy
from qvft.evaluation.unicode_letters import composed
from qvft.log import get_logger

Scores = list[list[float | None]]
"""For each row a score per text; None: the text is not scored."""

_OF_CAPTIONS = {"cider": "CIDEr", "bleu4": "Bleu_4", "rouge_l": "ROUGE_L"}
_OF_TEXTS: dict[str, Callable[[str, Sequence[str]], float]] = {
    "exact_match": exact_match,
    "token_f1": token_f1,
    "vqa_accuracy": vqa_accuracy,
}
_OF_QUESTIONS = ("vqa_accuracy",)
logger = get_logger("qvft.pairs")
NAMES = (*_OF_CAPTIONS, *_OF_TEXTS)
WHERE = "command line: --metric"


def kinds_of(metric: str) -> tuple[Kind, ...]:
    """The kinds of rows that a metric scores; of an own function both.

    Raises:
        RecipeError: no such metric, or no such function.
    """
    if is_dotted(metric):
        find_function(metric)
        return ("caption", "question")
    if metric in _OF_CAPTIONS:
        return ("caption",)
    if metric in _OF_QUESTIONS:
        return ("question",)
    if metric not in NAMES:
        near = difflib.get_close_matches(metric, NAMES, n=1)
        raise RecipeError(
            f'"{metric}"',
            where=WHERE,
            expected=f"one of {', '.join(NAMES)}, or package.module.function of your own",
            do=f'did you mean "{near[0]}"?' if near else None,
        )
    return ("caption", "question")


def scorable(rows: Sequence[Row], metric: str, *, against_reference: bool = False) -> list[Row]:
    """The rows of the kinds that a metric scores; a warning counts the others.

    Args:
        against_reference: each row needs a reference, whatever the metric.

    Raises:
        RecipeError: as `kinds_of`.
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
    """The score of each text of each row.

    CIDEr's document frequencies are those of the references of all rows.

    Args:
        rows: of the kinds that the metric scores.
        texts: texts of each row, any number.
        metric: of `NAMES`, or the dotted name of a function, see `find_function`.

    Raises:
        RecipeError: the function raises, or returns something other than a number per text.
    """
    if metric in _OF_CAPTIONS:
        return _corpus_scores(rows, texts, _OF_CAPTIONS[metric])
    if metric in _OF_TEXTS:
        score = _OF_TEXTS[metric]
        return [
            [score(text, row.references) for text in own]
            for row, own in zip(rows, texts, strict=True)
        ]
    return _own_scores(rows, texts, metric)


def _corpus_scores(rows: Sequence[Row], texts: Sequence[Sequence[str]], name: str) -> Scores:
    """Scores of `score_captions`: one pass per place, so that each row counts once in a pass."""
    references = {str(n): [_tokens(text) for text in row.references] for n, row in enumerate(rows)}
    scores: Scores = [[] for _ in rows]
    for number in range(max(map(len, texts), default=0)):
        predictions = {
            str(place): _tokens(own[number]) if number < len(own) else []
            for place, own in enumerate(texts)
        }
        found = score_tokens(references, predictions).per_item[name]
        for place, own in enumerate(texts):
            if number < len(own):
                scores[place].append(found[str(place)])
    return scores


def _tokens(text: str) -> list[str]:
    return tokenize(composed(text))


def find_function(metric: str) -> Callable[..., Any]:
    """The function of a dotted name, with trl's signature of reward functions.

    It is called once with lists, one item per text: `prompts` (questions, empty for captions),
    `completions`, `completion_ids` (empty), `id`, `kind`, `question`, `references`, `image` and
    `meta`, and returns a number, or None, per text.
    """
    return cast(Callable[..., Any], import_dotted(metric, cast(type, Callable), where=WHERE))


def _own_scores(rows: Sequence[Row], texts: Sequence[Sequence[str]], metric: str) -> Scores:
    flat = [(row, text) for row, own in zip(rows, texts, strict=True) for text in own]
    columns: dict[str, list[Any]] = {
        "prompts": [row.question or "" for row, _ in flat],
        "completions": [text for _, text in flat],
        "completion_ids": [[] for _ in flat],
        "id": [row.id for row, _ in flat],
        "kind": [row.kind for row, _ in flat],
        "question": [row.question for row, _ in flat],
        "references": [list(row.references) for row, _ in flat],
        "image": [row.sample.image for row, _ in flat],
        "meta": [dict(row.meta) for row, _ in flat],
    }
    function, where = find_function(metric), f"{WHERE} {metric}"
    try:
        given = function(**columns)
        values = [None if value is None else float(value) for value in given]
    except (Exception, SystemExit) as error:  # a user's function may raise anything
        raise RecipeError(
            f"it raises {type(error).__name__}: {error}",
            where=where,
            expected="a number per text",
        ) from error
    if len(values) != len(flat):
        raise RecipeError(
            f"it returns {len(values)} scores for {len(flat)} texts",
            where=where,
            expected="a number per text",
        )
    bad = next((n for n, value in enumerate(values) if value and not math.isfinite(value)), None)
    if bad is not None:
        raise RecipeError(
            f"it returns {values[bad]} for a text of row {flat[bad][0].id}",
            where=where,
            expected="finite numbers, or None for a text without a score",
        )
    remaining = iter(values)
    return [[next(remaining) for _ in own] for own in texts]
