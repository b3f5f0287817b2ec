"""Images without a checkpoint's own normalisation, cropping and shape."""

from __future__ import annotations

import torch
from PIL import Image
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from qvft.models.qvision.processing import plain_pixels

SIDE = {"height": 28, "width": 28}


def two_colours() -> Image.Image:
    """Twice as wide as high: the left half red, the right half white."""
    image = Image.new("RGB", (80, 40), "white")
    image.paste((255, 0, 0), (0, 0, 40, 40))
    return image


def test_plain_pixels_are_the_whole_image_stretched_from_0_to_1() -> None:
    clip = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size=SIDE)
    before = clip.to_dict()
    for processor in (clip, BlipImageProcessorPil(size=SIDE)):
        pixels = plain_pixels(processor)(images=[two_colours()], return_tensors="pt")
        found = pixels["pixel_values"][0]
        assert found.shape == (3, 28, 28)
        # Away from the border between the colours each pixel is one of them, to a rounding of 255.
        red, white = found[:, :, :10], found[:, :, -10:]
        torch.testing.assert_close(red[0], torch.ones(28, 10), rtol=0, atol=1e-6)
        torch.testing.assert_close(red[1:], torch.zeros(2, 28, 10), rtol=0, atol=1e-6)
        torch.testing.assert_close(white, torch.ones(3, 28, 10), rtol=0, atol=1e-6)
    assert clip.to_dict() == before


def test_a_checkpoints_own_pixels_are_cropped_and_normalised() -> None:
    """What plain pixels leave out: the left edge is gone, and white is not 1."""
    clip = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size=SIDE)
    found = clip(images=[two_colours()], return_tensors="pt")["pixel_values"][0]
    assert found.max() > 1.5
