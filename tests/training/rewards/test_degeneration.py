"""Signs that a reward is exploited."""

from __future__ import annotations

from pathlib import Path

import pytest

from qvft.data.rows import Row
from qvft.data.sample import ImageFile, Sample
from qvft.inference.sampled import Sampled
from qvft.training.rewards.held_out import degeneration

ROW = Row("x", Sample("x", ImageFile(Path("x.png"))), "caption", None, "a", ("a",), {})


def texts_of(*texts: str, stopped: bool = True) -> list[Sampled]:
    return [Sampled(0, ROW, "", (1,), (2, 3), text, stopped) for text in texts]


def test_signs_of_a_reward_that_is_exploited() -> None:
    texts = [*texts_of("a man with a", "a man with a dog."), *texts_of("on the", stopped=False)]
    means = {name: total / count for name, (total, count) in degeneration(texts).items()}
    assert means == {
        "completions/mean_length": 2.0,
        "completions/clipped_ratio": pytest.approx(1 / 3),
        "completions/bad_endings": pytest.approx(2 / 3),
        "completions/distinct_2": pytest.approx(5 / 8),
    }
