"""`qvft check --only model`: the memory estimate and component table know the image size."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from qvft.checking.check_recipe import check_model
from qvft.checking.findings import PhaseFindings
from qvft.errors import ModelError
from qvft.recipe.load import load_recipe

PROJECT = Path(__file__).resolve().parents[2]


@cache
def found(*overrides: str) -> PhaseFindings:
    return check_model(load_recipe(PROJECT / "recipes" / "vqa_v2.yaml", overrides)).phases[0]


def test_the_vit_has_the_positions_of_the_image_size() -> None:
    before, after = found(), found("model.image_size=364")
    totals = [phase.components[0].total for phase in (before, after)]
    # (364 / 14)^2 patches in place of (224 / 14)^2, 1408 wide.
    assert totals[1] - totals[0] == (26**2 - 16**2) * 1408
    assert before.memory[0].activations == after.memory[0].activations  # no graph in a frozen ViT


def test_a_trained_vit_takes_activations_for_every_patch() -> None:
    trained = ("trainable.vision=full", "train.gradient_checkpointing=false")
    frozen = found(trained[1]).memory[0].activations
    taken = [
        found(*trained, *size).memory[0].activations - frozen
        for size in ((), ["model.image_size=490"])
    ]
    # Eight questions of two images, 39 blocks, 1408 wide, 37.5 bytes.
    assert taken == [2 * (side**2 + 1) * 39 * 1408 * 37.5 for side in (16, 35)]


def test_a_size_that_is_no_multiple_is_refused_without_the_checkpoint() -> None:
    with pytest.raises(ModelError, match="set 364 or 378"):
        found("model.image_size=365")


TOKEN = 32 * 2560 * 24.2  # bytes of OPT-2.7B's activations: blocks, width, per unit


def test_a_pair_takes_the_activations_of_two_rows() -> None:
    phases = ['phases=[{"name": "l"}, {"name": "p", "objective": "preference"}]']
    recipe = load_recipe(PROJECT / "recipes" / "vqa_v2.yaml", phases)
    texts, pairs = check_model(recipe).phases
    own = recipe.data.max_text_tokens - 1  # the first token belongs to the shared prefix
    more = pairs.memory[0].activations - texts.memory[0].activations
    assert more == pytest.approx(8 * own * TOKEN, abs=2)
    assert pairs.memory_assumes.startswith("assumes 16 rows")


def test_packed_texts_of_an_image_share_its_prefix() -> None:
    alone, shared = found("train.packing=false"), found("train.packing=true")
    saved = alone.memory[0].activations - shared.memory[0].activations
    # Eight questions of two images: six times 32 visual tokens and the first one.
    assert saved == pytest.approx(6 * 33 * TOKEN, abs=2)


def test_moments_of_8_bits_take_a_quarter() -> None:
    plain, small = found(), found("train.arguments={optim: adamw_bnb_8bit}")
    weights = plain.total.trainable
    assert plain.memory[0].trained_states == 16 * weights
    # Two bytes, and two float32 scales per 256 weights, in place of eight.
    assert small.memory[0].trained_states == pytest.approx((8 + 2 + 8 / 256) * weights, abs=1)


def test_a_vit_without_cached_features_stays() -> None:
    cached, live = found(), found("data.features=off")
    vision = cached.components[0].total
    assert live.memory[0].weights - cached.memory[0].weights == 2 * vision
    small = found("train.per_device_train_batch_size=1", "train.gradient_checkpointing=true")
    # Then the cache pass, with the ViT and the trained weights in float32, takes more than a step.
    trained = 4 * small.total.trainable
    assert small.memory[0].total == live.memory[0].weights + trained
