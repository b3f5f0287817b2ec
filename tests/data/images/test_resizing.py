"""Images resized before the image processor sees them give the processor's own pixels."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_models
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil

from qvft.data.images.resizing import resized


@pytest.mark.parametrize("size", [(97, 61), (48, 48), (20, 130), (1, 1)])
@pytest.mark.parametrize("processor", ["blip", "clip"])
def test_the_processors_pixels_stay_the_same_to_the_bit(
    processor: str, size: tuple[int, int]
) -> None:
    images = (
        tiny_models.processor().image_processor
        if processor == "blip"
        else CLIPImageProcessorPil(
            size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48}
        )
    )
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    own, ours = (
        images(images=[one], return_tensors="pt")["pixel_values"]
        for one in (image, resized(image, images))
    )
    assert torch.equal(own, ours)


def test_a_large_image_is_made_small_before_the_processor() -> None:
    images = tiny_models.processor().image_processor
    assert resized(Image.new("RGB", (300, 200)), images).size == (
        images.size.width,
        images.size.height,
    )
