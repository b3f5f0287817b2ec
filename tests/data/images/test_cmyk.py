"""CMYK becomes the RGB that its profile says, or Pillow's where none is usable."""

from __future__ import annotations

import io
import itertools
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from qvft.data.images.rgb import to_rgb

WHITE, GREY, BLACK = (255, 128, 128), (128, 128, 128), (0, 128, 128)  # L*a*b* in 8 bits


def press() -> bytes:
    """An ICC profile of a press whose cyan ink alone is grey; other inks are black.

    Layout: ICC.1:2001-04, 6.1 (header), 6.5.8 (lut8Type), a cube of two points a side.
    """
    cube = []
    for cyan, magenta, yellow, key in itertools.product((0, 1), repeat=4):
        cube += BLACK if magenta or yellow or key else GREY if cyan else WHITE
    identity = struct.pack(">9i", *(65536 if n % 4 == 0 else 0 for n in range(9)))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity
    lut += bytes(range(256)) * 4 + bytes(cube) + bytes(range(256)) * 3
    table = struct.pack(">I4sII", 1, b"A2B0", 128 + 16, len(lut))
    header = struct.pack(
        ">IIIIII", 128 + 16 + len(lut), 0, 0x02400000, *words("prtr", "CMYK", "Lab ")
    )
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + table + lut


def words(*names: str) -> list[int]:
    return [int.from_bytes(name.encode(), "big") for name in names]


def inked(*values: int, profile: bytes | None) -> list[int]:
    """What one pixel of these inks becomes, by way of a TIFF."""
    stream = io.BytesIO()
    Image.new("CMYK", (1, 1), values).save(stream, "TIFF", icc_profile=profile)
    with Image.open(stream) as image:
        image.load()
        return np.asarray(to_rgb(image))[0, 0].tolist()


@pytest.mark.parametrize(
    ("inks", "lightness"),
    [((0, 0, 0, 0), 100.0), ((255, 0, 0, 0), 12800 / 255), ((0, 0, 0, 255), 0)],
)
def test_an_embedded_profile_says_what_the_inks_look_like(inks, lightness) -> None:
    luminance = ((lightness + 16) / 116) ** 3 if lightness > 8 else lightness / 903.3
    linear = 12.92 * luminance if luminance <= 0.0031308 else 1.055 * luminance ** (1 / 2.4) - 0.055
    # Two levels: the library works with tables of 8 bits in and out.
    assert inked(*inks, profile=press()) == pytest.approx([255 * linear] * 3, abs=2)


def test_without_a_profile_cyan_takes_red_away_and_black_everything() -> None:
    assert inked(255, 0, 0, 0, profile=None) == [0, 255, 255]
    assert inked(0, 0, 0, 255, profile=None) == [0, 0, 0]
    assert inked(51, 0, 0, 51, profile=None) == [163, 204, 204]  # (255 - 51) * (255 - 51) / 255


@pytest.mark.parametrize("damage", ["noise", "cut", "of RGB"])
def test_an_unusable_profile_is_left_aside(damage: str) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = {"noise": bytes(range(200)), "cut": press()[:300], "of RGB": srgb}[damage]
    assert inked(255, 0, 0, 0, profile=profile) == [0, 255, 255]
