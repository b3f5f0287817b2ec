"""The probe of what frozen features add to a question: it finds what is there, and no more."""

from __future__ import annotations

import numpy as np

from tools.real_parts.probe import WEIGHTS, Asked, best_accuracy


def asked(count: int, *, seed: int, depends_on_image: bool) -> Asked:
    """Questions about as many images, whose answers are the image's side or a coin's."""
    draw = np.random.default_rng(seed)
    side = draw.choice((-1.0, 1.0), size=count)
    seen = np.stack([side, draw.normal(scale=0.3, size=count)], axis=1)
    question = draw.normal(size=(count, 3))
    return Asked(
        np.arange(count),
        side if depends_on_image else draw.choice((-1.0, 1.0), size=count),
        question / np.linalg.norm(question, axis=1, keepdims=True),
        seen / np.linalg.norm(seen, axis=1, keepdims=True),
    )


def test_answers_that_the_image_holds_are_found_with_it_alone() -> None:
    train, test = (asked(120, seed=seed, depends_on_image=True) for seed in (0, 1))
    assert min(best_accuracy(train, test, WEIGHTS)) > 95
    assert max(best_accuracy(train, test, (0.0,))) < 70


def test_answers_of_chance_are_not_found() -> None:
    train, test = (asked(120, seed=seed, depends_on_image=False) for seed in (0, 1))
    assert best_accuracy(train, test, WEIGHTS)[1] < 70


def test_another_answer_than_yes_or_no_is_wrong() -> None:
    train, test = (asked(60, seed=seed, depends_on_image=True) for seed in (0, 1))
    test.answer[:30] = 0
    assert best_accuracy(train, test, WEIGHTS)[1] <= 50
