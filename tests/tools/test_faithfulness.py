"""What attention heatmaps are worth, by masking patches."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tools.faithfulness as masking
from qvft.data.formats import read_samples
from qvft.data.rows import Row, evaluation_rows
from qvft.evaluation.explanation.maps import target_batch
from qvft.setup.model import Loaded
from qvft.setup.resolve_model import load_resolved, resolve_model
from tools.faithfulness import main


@pytest.fixture(scope="module")
def loaded(tiny_folder: Path) -> Loaded:
    return load_resolved(resolve_model(str(tiny_folder)))


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return evaluation_rows(read_samples("drawn", "seed=5,count=3,size=48"), texts="questions")


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


def test_faithfulness_is_measured_on_a_runs_own_data(drawn_run: Path, tmp_path: Path, capsys):
    out = tmp_path / "found.json"
    assert main([str(drawn_run), "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["images"] == 2 and (found["masked_patches"], found["patches"]) == (4, 16)
    assert found["difference"] == pytest.approx(found["brightest"] - found["random"])
    assert found["verdict"] in capsys.readouterr().out


def test_the_limit_counts_images(tiny_folder: Path, recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    given = [str(tiny_folder), "--recipe", str(recipe_file), "--limit", "1"]
    assert main([*given, "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["images"] == 1 and found["interval"] is None
    assert found["verdict"].startswith("Too few")
