"""Baselines that never see the right image: image-blind, and the most frequent answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch

from qvft.data.rows import Row
from qvft.data.sample import Question, Sample
from qvft.errors import DataError, UserError
from qvft.evaluation.metrics.answers import normalise_answer
from qvft.log import get_logger
from qvft.recipe.schema import Recipe
from qvft.setup.data import read_texts
from qvft.setup.streaming import is_streamed

logger = get_logger("qvft.eval")

FREQUENT, BLIND = "most_frequent_answer", "blind"
FREQUENT_DEFINITION = (
    "most_frequent_answer: every question gets the most frequent answer of the training questions "
    "of its answer type, where the data states one, else of all training questions."
)
BLIND_DEFINITION = (
    "blind: the same model and texts, each shown the image of another sample; what it scores then "
    "owes nothing to the image."
)


def blind_images(samples: Sequence[Sample], *, seed: int) -> dict[str, Sample]:
    """Image-blind baseline: another sample's image for each sample, by a random cycle.

    A single sample keeps its own image, so there is no baseline.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(samples), generator=generator).tolist()
    return {
        samples[current].id: samples[following]
        for current, following in zip(order, order[1:] + order[:1], strict=True)
    }


def most_frequent_answers(train: Iterable[Question], asked: Sequence[Question]) -> list[str]:
    """Most frequent training answer for each question.

    Answers are normalised before counting; a question's answers share one vote; of equally
    frequent answers the alphabetically first is taken. A type unseen in training gets the most
    frequent answer of all.

    Args:
        train: questions of the training split, never of the split that is scored.
        asked: the questions to answer; only their `meta["answer_type"]` is read.

    Raises:
        DataError: there are no training questions.
    """
    votes: dict[str | None, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for question in train:
        for answer in question.answers:
            share = 1 / len(question.answers)
            for group in {None, _group(question)}:
                votes[group][normalise_answer(answer)] += share
    if not votes:
        raise DataError(
            "no training questions", expected="at least one, for the most-frequent-answer baseline"
        )
    best = {
        # Rounded, so that equal sums of fractional votes compare equal.
        group: min(count, key=lambda answer: (-round(count[answer], 6), answer))
        for group, count in votes.items()
    }
    return [best.get(_group(question), best[None]) for question in asked]


def _group(question: Question) -> str | None:
    return question.meta.get("answer_type", "").strip().lower() or None


def frequent_answer_predictions(recipe: Recipe, rows: Sequence[Row]) -> list[str] | None:
    """Most frequent training answer for each question among `rows`.

    None without questions, or without the training split.
    """
    asked = [row for row in rows if row.kind == "question"]
    if not asked or recipe.data.train is None:
        return None
    if is_streamed(recipe, "train"):
        logger.warning("no most-frequent-answer baseline: the training data is a stream")
        return None
    try:
        samples = read_texts(recipe, "train")
    except UserError as error:
        logger.warning("no most-frequent-answer baseline: %s", error)
        return None
    train = [question for sample in samples for question in sample.questions]
    questions = [Question(r.id, r.question or "", r.references, r.meta) for r in asked]
    return most_frequent_answers(train, questions) if train else None
