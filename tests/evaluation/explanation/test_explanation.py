"""From attention to maps: expected values by arithmetic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import qvft.evaluation.explanation.maps as explanation
from qvft.data.formats import read_samples
from qvft.data.rows import Row, evaluation_rows
from qvft.evaluation.explanation.maps import cosines, explain_texts, word_spans
from qvft.models.attention_capture import Attention
from qvft.setup.model import Loaded
from qvft.setup.resolve_model import load_resolved, resolve_model

Q, LENGTH = 12, 16  # of the row `<image>` x 12, `</s>`, " red", " blue", stop


@pytest.fixture(scope="module")
def loaded(tiny_folder: Path) -> Loaded:
    return load_resolved(resolve_model(str(tiny_folder)))


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return evaluation_rows(read_samples("drawn", "seed=5,count=3,size=48"), texts="questions")


def hand_made(tokens: int) -> Attention:
    """Four patches. Queries 0 and 1 look at patches 0 and 3 by nine tenths, the rest at none.

    The position that writes the first word reads query 0 by a half, the second's query 1 by a
    quarter, in the first layer, and in the second layer nothing of the image.
    """
    length = Q + tokens
    cross = torch.zeros(1, 1, Q, 5)
    cross[..., 0] = 1
    cross[0, 0, :2] = torch.tensor([[0.1, 0.9, 0, 0, 0], [0.1, 0, 0, 0, 0.9]])
    decoder = torch.zeros(2, 1, length, length)
    decoder[0, 0, length - 4, 0] = 0.5
    decoder[0, 0, length - 3, 1] = 0.25
    outputs = torch.eye(Q)[None] * 3
    outputs[0, 1, :2] = torch.tensor([1.0, 1.0])
    is_query = (torch.arange(length) < Q)[None]
    return Attention(
        text=decoder,
        is_query=is_query,
        cross=cross,
        has_class_token=True,
        grid=(2, 2),
        queries=outputs,
        reading="made by hand",
        limit="",
        text_layers=(0, 1),
        cross_layers=(0,),
    )


def test_a_words_map_is_use_of_queries_times_where_they_look(
    loaded: Loaded, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(model: Any, pixels: Any, batch: dict[str, torch.Tensor]) -> Attention:
        return hand_made(batch["input_ids"].shape[1] - Q)

    monkeypatch.setattr(explanation, "attend", made)
    (found,) = explain_texts(loaded.model, loaded.collator, rows[:1], ["red blue"])
    assert found is not None
    assert [word.text for word in found.words] == ["red", "blue"]
    # Two layers, of which one reads nothing: halves of 0.5 * 0.9 and of 0.25 * 0.9.
    np.testing.assert_allclose(found.words[0].map, [[0.225, 0], [0, 0]], atol=1e-7)
    np.testing.assert_allclose(found.words[1].map, [[0, 0], [0, 0.1125]], atol=1e-7)
    np.testing.assert_allclose(found.map, [[0.1125, 0], [0, 0.05625]], atol=1e-7)
    assert [word.on_image for word in found.words] == [0.25, 0.125]
    assert found.used[:3].tolist() == [0.125, 0.0625, 0]
    assert found.on_class_token == pytest.approx((10 + 0.2) / 12)
    # Query 1 gave (1, 1), query 0 (3, 0): cosine 1 / sqrt 2; query 2 is at right angles to both.
    assert found.similarity[1, :3] == pytest.approx([2**-0.5, 1, 0])
    assert (found.text_layers, found.cross_layers) == ((0, 1), (0,))
    assert found.reads_words and found.reading == "made by hand"


def test_cosines_with_patches_of_the_same_space() -> None:
    """Of a context token (3, 0), and queries (1, 1) and (0, 1)."""
    attention = replace(
        hand_made(1),
        queries=torch.tensor([[[3.0, 0.0], [1.0, 1.0], [0.0, 1.0]]]),
        features=torch.tensor([[[2.0, 0.0], [0.0, 5.0], [-1.0, 0.0], [0.0, -1.0]]]),
    )
    found = cosines(attention, 0)
    assert found is not None
    half = 2**-0.5
    # float32 divisions and a sum of two.
    np.testing.assert_allclose(found.context_to_queries, [half, 0], atol=1e-6)
    np.testing.assert_allclose(found.context_to_patches, [[1, 0], [-1, 0]], atol=1e-6)
    means = [[half / 2, (half + 1) / 2], [-half / 2, -(half + 1) / 2]]
    np.testing.assert_allclose(found.queries_to_patches, means, atol=1e-6)
    assert cosines(hand_made(1), 0) is None


def test_a_text_without_words_has_no_explanation(loaded: Loaded, rows: list[Row]) -> None:
    found = explain_texts(loaded.model, loaded.collator, rows[:2], ["", "red"])
    assert found[0] is None
    assert found[1] is not None and found[1].text == "red"


def test_rows_of_a_batch_are_explained_as_alone(loaded: Loaded, rows: list[Row]) -> None:
    texts = ["a red circle", "blue", "seven"]
    together = explain_texts(loaded.model, loaded.collator, rows[:3], texts)
    for row, text, among in zip(rows, texts, together, strict=False):
        (alone,) = explain_texts(loaded.model, loaded.collator, [row], [text])
        # Float32 sums of another batch shape; maps are about 0.02 in size.
        np.testing.assert_allclose(alone.map, among.map, rtol=0, atol=1e-6)


@pytest.mark.parametrize("text", ["a purple digit three", "straße  naïve 東京 don't x-ray", "red"])
def test_tokens_are_merged_into_words(loaded: Loaded, text: str) -> None:
    tokenizer = loaded.collator.template.tokenizer
    ids = tokenizer(" " + text, add_special_tokens=False)["input_ids"]
    spans = word_spans(tokenizer, ids)
    assert [word for word, _ in spans] == text.split()
    covered = [place for _, span in spans for place in range(len(ids))[span]]
    assert covered == sorted(set(covered))
