from __future__ import annotations

import numpy as np
import pytest

from qvft.evaluation.metrics import retrieval
from qvft.evaluation.metrics.retrieval import retrieval_scores

# Two images; texts 0 and 1 belong to image 0, text 2 to image 1.
OWNER = [0, 0, 1]


def test_an_image_is_found_by_the_best_of_its_texts() -> None:
    # Image 0 ranks 2, 1, 0: its better text is second. Image 1 ranks 0, 2, 1: second too.
    scores = retrieval_scores([[0.1, 0.5, 0.9], [0.8, 0.2, 0.6]], OWNER)
    assert scores.image_ranks.tolist() == [1, 1]
    assert scores.image_to_text == {1: 0.0, 5: 100.0, 10: 100.0}


def test_a_text_is_found_by_its_image() -> None:
    # Text 0: image 1 is better. Text 1: image 0 is the best. Text 2: image 0 is better.
    scores = retrieval_scores([[0.1, 0.5, 0.9], [0.8, 0.2, 0.6]], OWNER)
    assert scores.text_ranks.tolist() == [1, 0, 1]
    assert scores.text_to_image == {1: pytest.approx(100 / 3), 5: 100.0, 10: 100.0}


def test_an_images_other_texts_do_not_stand_before_its_best() -> None:
    scores = retrieval_scores([[0.9, 0.8, 0.1], [0.1, 0.1, 0.7]], OWNER)
    assert scores.image_ranks.tolist() == [0, 0]


def test_the_cutoffs_are_1_5_and_10() -> None:
    # Twelve pairs; image i is most like text i + 3, so its own text is 3 away from the best.
    similarity = -np.abs(np.arange(12)[None, :] - 3.0 - np.arange(12)[:, None])
    scores = retrieval_scores(similarity, range(12))
    # Texts i + 1 to i + 5 are nearer and i + 6 is as near, where there are so many.
    expected = [sum(1 for j in range(12) if j != i and abs(j - 3 - i) <= 3) for i in range(12)]
    assert scores.image_ranks.tolist() == expected == [6] * 6 + [5, 4, 3, 2, 1, 0]
    assert set(scores.image_to_text) == {1, 5, 10}
    assert scores.image_to_text[1] == pytest.approx(100 / 12)
    assert scores.image_to_text[5] == pytest.approx(500 / 12)
    assert scores.image_to_text[10] == 100.0


def test_ties_count_against_the_model_whatever_their_order() -> None:
    alike = np.zeros((3, 6))
    scores = retrieval_scores(alike, [0, 0, 1, 1, 2, 2])
    assert scores.image_ranks.tolist() == [4, 4, 4]
    assert scores.text_ranks.tolist() == [2] * 6
    assert scores.image_to_text == {1: 0.0, 5: 100.0, 10: 100.0}


def test_ties_among_an_images_own_texts_cost_nothing() -> None:
    scores = retrieval_scores([[0.9, 0.9, 0.1], [0.1, 0.1, 0.7]], OWNER)
    assert scores.image_to_text[1] == scores.text_to_image[1] == 100.0


def test_without_ties_it_equals_sorting_every_row() -> None:
    generator = np.random.default_rng(0)
    similarity = generator.permutation(40 * 100).reshape(40, 100)
    owner = np.append(np.arange(40), generator.integers(40, size=60))
    scores = retrieval_scores(similarity, owner)
    by_row = [owner[np.argsort(-row)] for row in similarity]
    first = [np.flatnonzero(order == image)[0] for image, order in enumerate(by_row)]
    by_column = [np.argsort(-column) for column in similarity.T]
    place = [np.flatnonzero(order == owner[text])[0] for text, order in enumerate(by_column)]
    assert scores.image_ranks.tolist() == first
    assert scores.text_ranks.tolist() == place


def test_blocks_do_not_change_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(1)
    similarity = generator.integers(9, size=(7, 23))
    owner = np.append(np.arange(7), generator.integers(7, size=16))
    whole = retrieval_scores(similarity, owner)
    monkeypatch.setattr(retrieval, "_CELLS", 30)
    blocks = retrieval_scores(similarity, owner)
    assert blocks.image_ranks.tolist() == whole.image_ranks.tolist()
    assert blocks.text_ranks.tolist() == whole.text_ranks.tolist()


def test_pairs_that_were_not_scored_come_last() -> None:
    unscored = -np.inf
    scores = retrieval_scores([[0.5, unscored], [0.6, unscored]], [0, 1])
    # Image 1 is found after text 0; text 1 has no score with either image: both tie.
    assert scores.image_ranks.tolist() == [0, 1]
    assert scores.text_ranks.tolist() == [1, 1]


def test_half_precision_is_compared_as_it_is() -> None:
    scores = retrieval_scores(np.eye(3, dtype=np.float16), [0, 1, 2])
    assert scores.image_to_text[1] == 100.0


@pytest.mark.parametrize(
    "similarity, owner, says",
    [
        ([[0.1, float("nan")], [0.2, 0.3]], [0, 1], "1 similarities are NaN"),
        ([0.1, 0.2], [0, 1], r"shape \(2,\)"),
        ([["a"]], [0], "expected numbers"),
        (np.zeros((0, 0)), [], "expected numbers"),
        ([[0.1, 0.2]], [0], "expected a row below 1 for 2 texts"),
        ([[0.1, 0.2]], [0.0, 0.0], "expected a row"),
        ([[0.1, 0.2]], [0, 1], "expected a row"),
        ([[0.1, 0.2]], [-1, 0], "expected a row"),
        ([[0.1], [0.2]], [1], "1 images have no text, first row 0"),
    ],
)
def test_what_is_no_similarity_matrix_is_refused(similarity, owner, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        retrieval_scores(similarity, owner)
