"""Resizes images to the size of an image processor, before the processor sees them."""

from __future__ import annotations

from typing import Any

from PIL.Image import Image


def resized(image: Image, image_processor: Any) -> Image:
    """The image at the processor's height and width; as it is if the processor resizes otherwise.

    The processor's result stays the same to the bit; it would copy whole images to arrays and back.

    Source: `PilBackend` in transformers, which resizes first, with Pillow.
    """
    size = image_processor.size
    if image_processor.backend != "pil" or not image_processor.do_resize:
        return image
    if size.shortest_edge or not (size.height and size.width):
        return image
    return image.resize((size.width, size.height), image_processor.resample)
