"""Transparency: composites an image with an alpha channel onto white."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image
from PIL.ImageFile import ImageFile

Box = tuple[int, int, int, int]

_UNUSED_ALPHA = {"BMP", "DIB", "TGA"}
"""Formats in which an alpha channel of zeros often has no meaning."""

_RESCALED: Mapping[str, Callable[[Any], Any]] = {
    "L;2": lambda value: value * 85,
    "L;4": lambda value: value * 17,
    "RGB;16B": lambda value: tuple(channel >> 8 for channel in value),
}
"""Per PNG raw mode: maps the transparent value to that of decoded pixels."""


def over_white(image: Image.Image) -> Image.Image:
    """A loaded image with transparency composited onto white, as RGB.

    A fully transparent BMP or TGA is treated as opaque. Source: nothings/stb, stb_image.h,
    stbi__bmp_load, which does so for BMP.
    """
    straight = image.convert("LA") if image.mode == "La" else image
    rgba = straight.convert("RGBA")
    if image.format in _UNUSED_ALPHA and rgba.getchannel("A").getbbox() is None:
        return rgba.convert("RGB")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")


def settle_key(image: Image.Image) -> None:
    """Scales the transparent value of an unloaded PNG to the decoded pixels.

    Pillow converts grey of 2 and 4 bits and RGB of 16 bits to 8 bits, but not that value. RGB
    values that are equal in 8 bits are transparent together.
    """
    key = image.info.get("transparency")
    if image.format == "PNG" and key is not None and isinstance(image, ImageFile) and image.tile:
        rescaled = _RESCALED.get(str(image.tile[0].args))
        if rescaled is not None:
            image.info["transparency"] = rescaled(key)


def drawn_box(image: Image.Image) -> Box | None:
    """Box of the first frame on an unloaded GIF's canvas; None for all of it."""
    if image.format != "GIF" or not isinstance(image, ImageFile) or not image.tile:
        return None
    box = image.tile[0].extents
    return None if box is None or box == (0, 0, *image.size) else box


def white_outside(image: Image.Image, box: Box) -> Image.Image:
    """An RGB image with everything outside a box set to white."""
    canvas = Image.new("RGB", image.size, (255, 255, 255))
    canvas.paste(image.crop(box), box[:2])
    return canvas
