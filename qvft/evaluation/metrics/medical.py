"""Medical VQA scores, each with a name, a version and a definition.

Published figures under the same names follow different definitions, so a figure without its
definition compares with nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal

from qvft.evaluation.metrics.answers import (
    NORMALISATION,
    answer_tokens,
    exact_match,
    find_yes_no,
    is_yes_no,
    normalise_answer,
    parse_yes_no,
)

AnswerType = Literal["closed", "open"]

_BEST = (
    "the best reference counts; tokens are lower-cased runs of letters with their marks, and digits"
)
_OTHERWISE = f"otherwise it must equal a reference, both {NORMALISATION}"
DEFINITIONS: dict[str, str] = {
    "accuracy": "accuracy/v2: closed_accuracy/v2 and open_exact_match/v2 over all questions.",
    "closed_accuracy": (
        "closed_accuracy/v2: share of closed questions answered right; if the reference is yes or "
        "no, the prediction must open with that word (an answer that says neither is wrong and "
        f"counted as unparseable), {_OTHERWISE}."
    ),
    "closed_accuracy_anywhere": (
        "closed_accuracy_anywhere/v1: as closed_accuracy, but if the reference is yes or no, the "
        "prediction must hold that word as a whole word, anywhere, and not the other (both or "
        f"neither is wrong and counted as undecided), {_OTHERWISE}."
    ),
    "closed_unparseable": (
        "closed_unparseable/v2: share of questions with a yes/no reference whose prediction says "
        "neither yes nor no by the rules of closed_accuracy."
    ),
    "closed_undecided": (
        "closed_undecided/v1: share of questions with a yes/no reference whose prediction holds "
        "both words or neither, anywhere."
    ),
    "open_exact_match": (
        "open_exact_match/v2: share of open questions whose prediction equals a reference, "
        f"both {NORMALISATION}."
    ),
    "open_token_recall": (
        "open_token_recall/v2: mean share of the reference's tokens that the prediction holds, "
        f"repetitions counted; {_BEST}."
    ),
    "open_token_f1": (
        "open_token_f1/v2: mean harmonic mean of token precision and token recall, repetitions "
        f"counted; {_BEST}."
    ),
    "open_bleu_1": (
        "open_bleu_1/v2: mean clipped token precision times the brevity penalty "
        f"exp(1 - reference length / prediction length); {_BEST}."
    ),
}


def answer_type(references: Sequence[str], meta: Mapping[str, str]) -> AnswerType:
    """As `meta["answer_type"]` says, else `closed` if all references are yes or no."""
    stated = meta.get("answer_type", "").strip().lower()
    closed = stated == "closed" if stated in ("closed", "open") else is_yes_no(references)
    return "closed" if closed else "open"


def closed_correct(prediction: str, references: Sequence[str]) -> float:
    """1 if a closed question is answered right by `closed_accuracy/v2`, else 0."""
    if is_yes_no(references):
        return float(parse_yes_no(prediction) in {normalise_answer(text) for text in references})
    return exact_match(prediction, references)


def closed_correct_anywhere(prediction: str, references: Sequence[str]) -> float:
    """1 if a closed question is answered right by `closed_accuracy_anywhere/v1`, else 0."""
    if is_yes_no(references):
        return float(find_yes_no(prediction) in {normalise_answer(text) for text in references})
    return exact_match(prediction, references)


def item_scores(
    prediction: str, references: Sequence[str], kind: AnswerType
) -> tuple[dict[str, float], dict[str, str]]:
    """An item's scores by name, from 0 to 1, and what was understood of its answer.

    The latter is `answer_type` and, for yes/no questions, `parsed` (`yes`, `no`, `unparseable`)
    and `parsed_anywhere` (`yes`, `no`, `both`, `neither`).
    """
    outcome: dict[str, str] = {"answer_type": kind}
    if kind == "open":
        match = exact_match(prediction, references)
        return {
            "accuracy": match,
            "open_exact_match": match,
            "open_token_recall": token_recall(prediction, references),
            "open_token_f1": token_f1(prediction, references),
            "open_bleu_1": bleu_1(prediction, references),
        }, outcome
    correct = closed_correct(prediction, references)
    scores = {
        "accuracy": correct,
        "closed_accuracy": correct,
        "closed_accuracy_anywhere": closed_correct_anywhere(prediction, references),
    }
    if is_yes_no(references):
        parsed, found = parse_yes_no(prediction), find_yes_no(prediction)
        outcome |= {"parsed": parsed, "parsed_anywhere": found}
        scores["closed_unparseable"] = float(parsed == "unparseable")
        scores["closed_undecided"] = float(found in ("both", "neither"))
    return scores, outcome


def token_recall(prediction: str, references: Sequence[str]) -> float:
    """Share of the best reference's tokens found in the prediction, from 0 to 1."""
    return max((_overlap(prediction, reference)[1] for reference in references), default=0.0)


def token_f1(prediction: str, references: Sequence[str]) -> float:
    """Harmonic mean of token precision and recall against the best reference, from 0 to 1.

    Source: Rajpurkar et al. 2016, "SQuAD", section 6.1, without its removal of articles.
    """
    return max((_f1(*_overlap(prediction, reference)) for reference in references), default=0.0)


def bleu_1(prediction: str, references: Sequence[str]) -> float:
    """Clipped token precision times the brevity penalty, best reference, from 0 to 1."""
    length = _token_counts(prediction).total()
    if not length:
        return 0.0
    return max(
        (
            _overlap(prediction, reference)[0]
            * math.exp(min(0.0, 1 - _token_counts(reference).total() / length))
            for reference in references
        ),
        default=0.0,
    )


@lru_cache(maxsize=1024)  # several scores of an answer, several answers to a question
def _token_counts(text: str) -> Counter[str]:
    return Counter(answer_tokens(text))


def _overlap(prediction: str, reference: str) -> tuple[float, float]:
    """Token precision and recall; 0 where a text has no tokens."""
    given, wanted = _token_counts(prediction), _token_counts(reference)
    shared = sum((given & wanted).values())
    return shared / max(1, given.total()), shared / max(1, wanted.total())


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
