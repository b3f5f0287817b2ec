"""Calibration: ECE, risk against coverage, and their intervals."""

from __future__ import annotations

import numpy as np
import pytest

from qvft.evaluation.calibration import BINS, calibration


def test_figures_of_a_small_example_are_those_by_hand() -> None:
    # Bins of 0.1: {0.95, 0.93}, {0.62}, {0.31, 0.35}.
    p = [0.31, 0.95, 0.62, 0.93, 0.35]
    right = [0.0, 1.0, 1.0, 0.0, 1.0]
    found = calibration(p, right, ["a", "b", "c", "d", "e"], score="exact_match")
    gaps = 2 * abs(0.5 - 0.94) + 1 * abs(1 - 0.62) + 2 * abs(0.5 - 0.33)
    assert found.figures["ece"] == pytest.approx(gaps / 5)
    # By falling probability: right, wrong, right, right, wrong.
    assert found.figures["aurc"] == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 4 + 2 / 5) / 5)
    # 50 % of five are three answers, 80 % four, 90 % all five.
    selective = [found.figures[f"accuracy_at_{coverage}"] for coverage in (50, 80, 90)]
    assert selective == pytest.approx([2 / 3, 3 / 4, 3 / 5])
    assert found.figures["accuracy"] == pytest.approx(3 / 5)
    assert [(one.n, one.accuracy) for one in found.bins] == [(2, 0.5), (1, 1.0), (2, 0.5)]


def independent_ece(p: np.ndarray, right: np.ndarray) -> float:
    edges = np.linspace(0, 1, BINS + 1)
    total = 0.0
    for low, high in zip(edges, edges[1:], strict=False):
        inside = (p >= low) & ((p < high) | ((high == 1) & (p == 1)))
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - p[inside].mean())
    return total


def test_ece_and_its_interval_are_those_of_resampled_images() -> None:
    generator = np.random.default_rng(0)
    p = generator.random(300)
    right = (generator.random(300) < p**2).astype(float)  # too sure
    images = [f"{number // 3}" for number in range(300)]
    found = calibration(p.tolist(), right.tolist(), images, score="s")
    assert found.figures["ece"] == pytest.approx(independent_ece(p, right))
    draws = []
    for _ in range(400):
        chosen = generator.integers(100, size=100)
        items = (3 * chosen[:, None] + np.arange(3)).ravel()
        draws.append(independent_ece(p[items], right[items]))
    # 400 draws tell a bound of the middle 95 % to about a tenth of its width, 0.1.
    assert found.intervals["ece"] == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=0.02)


def test_one_image_has_no_interval() -> None:
    found = calibration([0.5, 1.0], [1.0, 1.0], ["a", "a"], score="s")
    assert found.intervals == {}
    assert found.figures["aurc"] == 0.0
