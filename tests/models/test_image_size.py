"""Another image size: the ViT's output is that of transformers' per-call interpolation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, Blip2ForConditionalGeneration, CLIPConfig

from qvft.errors import ModelError
from qvft.models.base_checkpoint import find_checkpoint
from qvft.models.image_size import (
    POSITIONS,
    config_with_image_size,
    processor_with_image_size,
    resize_positions,
)
from qvft.models.load import load_model, load_processor
from tools.tiny_blip2.geometry import tiny_config

PATCH = tiny_config().vision_config.patch_size
STORED = tiny_config().vision_config.image_size


@pytest.mark.parametrize("side", [3, 6, 7])
def test_features_are_those_of_interpolation_per_call(tiny_folder: Path, side: int) -> None:
    size = side * PATCH
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    plain = Blip2ForConditionalGeneration.from_pretrained(tiny_folder).eval().vision_model
    base = find_checkpoint(str(tiny_folder), image_size=size)
    resized = load_model(base, dtype=torch.float32)
    with torch.no_grad():
        expected = plain(pixel_values=pixels, interpolate_pos_encoding=True).last_hidden_state
        found = resized.vision_model(pixel_values=pixels).last_hidden_state
    assert found.shape[1] == side * side + 1
    # Features are of size 1 after the last norm, where float32 values are 1.2e-7 apart; sums of
    # four blocks may be taken in another order.
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert resized.config.vision_config.image_size == size
    assert resized.vision_model.config.image_size == size


def test_positions_in_bfloat16_are_interpolated_exactly_and_rounded_once(tiny_folder: Path) -> None:
    base = find_checkpoint(str(tiny_folder), image_size=7 * PATCH)
    exact = load_model(base, dtype=torch.float32).get_parameter(POSITIONS).detach()
    rounded = load_model(base, dtype=torch.bfloat16).get_parameter(POSITIONS).detach()
    assert rounded.dtype == torch.bfloat16
    # The stored positions were rounded by up to 2^-8 of a value, and the interpolated ones again;
    # the absolute values of bicubic weights sum to at most 1.9.
    close = 2.0**-8 * 2.9 * float(exact.abs().max())
    assert float((rounded.float() - exact).abs().max()) < close


def test_the_size_of_the_checkpoint_changes_nothing(tiny_folder: Path) -> None:
    base = find_checkpoint(str(tiny_folder), image_size=STORED)
    assert base == find_checkpoint(str(tiny_folder))


def test_a_resized_model_stays_frozen_and_the_class_token_stays(tiny_folder: Path) -> None:
    model = Blip2ForConditionalGeneration.from_pretrained(tiny_folder)
    before = model.get_parameter(POSITIONS).requires_grad_(False).clone()
    resize_positions(model, 6 * PATCH)
    after = model.get_parameter(POSITIONS)
    assert not after.requires_grad
    assert torch.equal(after[:, 0], before[:, 0])


def test_the_processor_makes_images_of_that_size(tiny_folder: Path) -> None:
    base = find_checkpoint(str(tiny_folder), image_size=6 * PATCH)
    image = Image.new("RGB", (50, 30), "red")
    pixels = load_processor(base).image_processor(images=[image], return_tensors="pt")
    assert pixels["pixel_values"].shape == (1, 3, 6 * PATCH, 6 * PATCH)


def test_a_processor_that_crops_keeps_the_share_that_it_crops(tiny_folder: Path) -> None:
    from transformers import CLIPImageProcessor

    processor = AutoProcessor.from_pretrained(tiny_folder)
    cropping = CLIPImageProcessor(size={"shortest_edge": 256}, crop_size=224)
    processor.image_processor = cropping
    resized = processor_with_image_size(processor, 448).image_processor
    assert resized.size["shortest_edge"] == 512
    assert resized.crop_size["height"] == resized.crop_size["width"] == 448
    assert cropping.crop_size["height"] == 224


@pytest.mark.parametrize("size", [PATCH - 1, STORED + 1])
def test_a_size_that_is_no_multiple_of_the_patch_is_refused(tiny_folder: Path, size: int) -> None:
    with pytest.raises(ModelError, match=rf"{size} pixels.*a multiple of {PATCH}"):
        find_checkpoint(str(tiny_folder), image_size=size)


def test_another_architecture_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match=r"image_size.*type clip"):
        config_with_image_size(CLIPConfig(), 448)
