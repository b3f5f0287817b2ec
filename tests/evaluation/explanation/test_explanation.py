"""From attention to maps, and what maps are worth: expected values by arithmetic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import qvft.evaluation.explanation.faithfulness as masking
import qvft.evaluation.explanation.maps as explanation
from qvft.data.formats import read_samples
from qvft.data.rows import Row, evaluation_rows
from qvft.evaluation.explanation.maps import cosines, explain_texts, target_batch, word_spans
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


def test_log_probabilities_are_those_of_the_plain_forward_pass(
    loaded: Loaded, rows: list[Row]
) -> None:
    texts = ["red", "a blue circle"]
    batch = target_batch(loaded.collator, rows[:2], texts, place="cpu")
    found = masking.log_probabilities(loaded.model, batch["pixel_values"], batch)
    with torch.no_grad():
        logits = loaded.model(
            pixel_values=batch["pixel_values"],
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
        ).logits.log_softmax(dim=-1)
    for row, ids in enumerate(batch["input_ids"]):
        words = (batch["labels"][row] != -100).nonzero()[:-1, 0].tolist()
        expected = sum(float(logits[row, place - 1, ids[place]]) for place in words)
        assert found[row] == pytest.approx(expected, abs=1e-4)  # float32 logits, ten layers deep


def test_a_fifth_is_rounded_up_and_the_brightest_go_first() -> None:
    map_ = np.arange(16.0).reshape(4, 4)
    mask = masking.brightest_patches(map_)
    assert mask.sum() == masking.masked_count(16) == 4  # 3.2
    assert mask[3].all()
    assert masking.random_patches((4, 4), np.random.default_rng(0)).sum() == 4


def test_masked_patches_are_zero_and_the_others_untouched() -> None:
    pixels = torch.ones(1, 3, 48, 48)
    mask = np.zeros((1, 4, 4), dtype=bool)
    mask[0, 1, 2] = True
    masked = masking.mask_patches(pixels, mask)
    assert masked[0, :, 12:24, 24:36].count_nonzero() == 0
    assert masked.sum() == 3 * (48 * 48 - 12 * 12)
    assert pixels.min() == 1


def test_pixels_that_no_patch_covers_stay() -> None:
    """Patches of 5 pixels in an image of 16: the last row and column are cut off by the ViT."""
    masked = masking.mask_patches(torch.ones(1, 3, 16, 16), np.ones((1, 3, 3), dtype=bool))
    assert masked[..., :15, :15].count_nonzero() == 0
    assert masked.sum() == 3 * (16 * 16 - 15 * 15)


def test_maps_that_mask_the_same_do_no_better_than_random(
    loaded: Loaded, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masking, "SHARE", 1.0)  # whichever patches come first, all are masked
    texts = ["red"] * len(rows)
    found = masking.faithfulness(loaded.model, loaded.collator, rows, texts, batch_size=4, draws=2)
    assert found.difference == pytest.approx(0, abs=1e-9)
    assert (found.n, found.images, found.masked_patches) == (len(rows), 3, 16)
    assert "no better than random" in replace(found, interval=(0.0, 0.0)).verdict


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        ((0.1, 0.3), "do better than random"),
        ((-0.1, 0.3), "do no better than random"),
        ((-0.3, -0.1), "do worse than random"),
        (None, "Too few images"),
    ],
)
def test_what_the_interval_says_is_said(interval: Any, said: str) -> None:
    found = masking.Faithfulness(1.0, 0.9, 0.1, interval, 5, 2, 0, 4, 16, 5, 0)
    assert said in found.verdict and found.verdict in found.screen()


def test_the_figure_does_not_depend_on_the_batch_size(loaded: Loaded, rows: list[Row]) -> None:
    texts = ["red", "", "red", "red", "red"]
    found = [
        masking.faithfulness(loaded.model, loaded.collator, rows[:5], texts, batch_size=size)
        for size in (2, 5)
    ]
    assert found[0].without_words == found[1].without_words == 1
    assert found[0].random == pytest.approx(found[1].random, abs=1e-5)  # float32 log-probabilities
