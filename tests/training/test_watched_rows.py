"""The sample of evaluation rows while training."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from qvft.data.rows import Row
from qvft.data.sample import ImageFile, Sample
from qvft.training.phase_rows import LEAST, default_limit, watched_rows


@pytest.fixture
def rows() -> list[Row]:
    """1 to 5 texts of each of 40 images: 120 rows."""
    samples = [Sample(f"{number}", ImageFile(Path(f"{number}.png"))) for number in range(40)]
    return [
        Row(f"{one.id}#{place}", one, "caption", None, "", (), {})
        for number, one in enumerate(samples)
        for place in range(1 + number % 5)
    ]


def test_images_stay_whole_and_the_limit_holds(rows: list[Row]) -> None:
    whole = Counter(row.sample.id for row in rows)
    found = watched_rows(rows, 50, seed=1)
    counts = Counter(row.sample.id for row in found)
    assert 45 <= len(found) <= 50
    assert all(counts[image] == whole[image] for image in counts)
    assert found == [row for row in rows if row in found]  # in their order


def test_a_seed_draws_the_same_images_again_and_another_seed_others(rows: list[Row]) -> None:
    assert watched_rows(rows, 50, seed=1) == watched_rows(rows, 50, seed=1)
    assert watched_rows(rows, 50, seed=1) != watched_rows(rows, 50, seed=2)


@pytest.mark.parametrize(("limit", "count"), [(0, 120), (120, 120), (1, 1)])
def test_no_limit_takes_all_and_the_smallest_takes_one(
    rows: list[Row], limit: int, count: int
) -> None:
    assert len(watched_rows(rows, limit, seed=1)) == count


def test_an_image_with_more_texts_than_the_limit_is_cut() -> None:
    sample = Sample("0", ImageFile(Path("0.png")))
    rows = [Row(f"{n}", sample, "caption", None, "", (), {}) for n in range(9)]
    assert watched_rows(rows, 4, seed=0) == rows[:4]


def test_the_default_is_half_of_what_is_trained_in_between() -> None:
    assert default_limit(50 * 16) == 400
    assert default_limit(8) == LEAST
