"""Likelihoods in an evaluation: probability of each text, and candidate answers ranked by it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os.path import isfile
from typing import TYPE_CHECKING

from qvft.data.predict_inputs import read_names
from qvft.data.rows import Row, training_rows
from qvft.errors import RecipeError
from qvft.evaluation.metric import GroupScores, ScoreInfo, mean_score
from qvft.evaluation.metrics.answers import exact_match, normalise_answer
from qvft.evaluation.rows import PredictionRow
from qvft.recipe.schema import Recipe
from qvft.setup.data import read_texts

if TYPE_CHECKING:
    from qvft.inference.predict import Outcome

SCORES, CANDIDATES = "scores", "candidates"
TRAIN = "train"
PROBABILITY, CANDIDATE_PROBABILITY = "probability", "candidate_probability"
CANDIDATE_ACC, CANDIDATE_ACC_NORM = "candidate_acc", "candidate_acc_norm"
_RANKED = (
    "share of the questions with a reference among their candidates whose most likely candidate is "
    "one, by the log-probability of the candidate with its stop token"
)
LIKELIHOOD_SCORES = (
    ScoreInfo(
        CANDIDATE_ACC,
        definition=f"{CANDIDATE_ACC}/v1: {_RANKED} (`acc` of lm-evaluation-harness, which "
        "counts no stop token).",
        label="accuracy among candidates",
        table=20,
        page=10,
    ),
    ScoreInfo(
        CANDIDATE_ACC_NORM,
        definition=f"{CANDIDATE_ACC_NORM}/v1: {_RANKED}, its mean per token (`acc_norm` of "
        "lm-evaluation-harness divides by characters).",
        table=21,
        page=None,
    ),
)
_KEYS = {
    SCORES: ("log_prob", "mean_log_prob", PROBABILITY, "abstained"),
    CANDIDATES: (CANDIDATE_ACC, CANDIDATE_ACC_NORM, "candidate", CANDIDATE_PROBABILITY),
}
Values = Mapping[str, float | str]


def with_candidates(recipe: Recipe, rows: Sequence[Row]) -> list[Row]:
    """The rows; questions with a reference among their candidates have these, others none.

    Candidates are the row's own, else those of `eval.candidates`.

    Raises:
        UserError: the file or the training data is missing, or fits no question.
    """
    named = recipe.eval.candidates or ()
    if named == TRAIN:
        asked = training_rows(read_texts(recipe, "train"), texts="questions")
        given = tuple({normalise_answer(row.target): row.target for row in asked}.values())
    elif isinstance(named, str) and not isfile(named):
        wanted = "a list of answers, a text file with one per line, or train"
        raise RecipeError(f'"{named}" is no file', where="eval.candidates", expected=wanted)
    else:
        given = read_names(named) if isinstance(named, str) else tuple(named)
    found = [replace(row, candidates=_own(row, given)) for row in rows]
    if named and not any(row.candidates for row in found):
        raise RecipeError("no question has one of them as its answer", where="eval.candidates")
    return found


def _own(row: Row, given: tuple[str, ...]) -> tuple[str, ...]:
    candidates = row.candidates or given
    known = {normalise_answer(one) for one in candidates}
    fits = any(normalise_answer(one) in known for one in row.references)
    return candidates if row.kind == "question" and fits else ()


def likelihood_values(row: Row, outcome: Outcome) -> dict[str, float | str]:
    """An item's values, as in `scores` of its line in `predictions.jsonl`."""
    found: dict[str, float | str] = {}
    if outcome.abstained is not None:
        found["abstained"] = float(outcome.abstained)
    if outcome.log_probs:
        own = outcome.log_probs[0]
        found |= {"log_prob": own.sum, "mean_log_prob": own.mean, PROBABILITY: math.exp(own.sum)}
    if outcome.candidates:
        best = outcome.candidates[0]
        by_mean = max(outcome.candidates, key=lambda one: one.log_prob.mean)
        found["candidate"] = best.text
        found[CANDIDATE_PROBABILITY] = best.probability
        found[CANDIDATE_ACC] = exact_match(best.text, row.references)
        found[CANDIDATE_ACC_NORM] = exact_match(by_mean.text, row.references)
    return found


def likelihood_groups(
    rows: Sequence[PredictionRow], per_item: Sequence[Values]
) -> dict[str, GroupScores]:
    """Metrics of the items' values, of a new or a stored evaluation, by group."""
    groups = {}
    for name, keys in _KEYS.items():
        own = [{key: values[key] for key in keys if key in values} for values in per_item]
        metrics = []
        for info in LIKELIHOOD_SCORES:
            items = {i: float(one[info.name]) for i, one in enumerate(own) if info.name in one}
            if items:
                metrics.append(mean_score(rows, info, items))
        if any(own):
            outcomes = {number: one for number, one in enumerate(own) if one}
            groups[name] = GroupScores(len(outcomes), metrics, outcomes)
    return groups
