"""What an image does not cover is white, and nothing else is."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from qvft.data.images.decoding import decode

pytestmark = pytest.mark.filterwarnings("error")

RED, GREEN, WHITE = [255, 0, 0], [0, 255, 0], [255, 255, 255]


class Encoded:
    name = "encoded"

    def __init__(self, content: bytes) -> None:
        self.content = content

    def open(self) -> Image.Image:
        return Image.open(io.BytesIO(self.content))


def pixels(content: bytes) -> list:
    return np.asarray(decode(Encoded(content))).tolist()


def saved(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png(width: int, bits: int, colour: int, row: bytes, key: bytes) -> bytes:
    """A PNG of one row with a transparent value, by the specification's layout."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, 1, bits, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"tRNS", key)
    chunks += chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize(
    ("bits", "row", "key", "greys"),
    [
        (1, b"\x40", 0, [255, 255]),
        (1, b"\x40", 1, [0, 255]),
        (2, b"\x1b", 1, [0, 255, 170, 255]),  # 0 1 2 3 of 3
        (4, b"\x3f", 3, [255, 255]),
        (4, b"\x35", 5, [51, 255]),  # 3 5 of 15
        (8, b"\x0a\x14", 10, [255, 20]),
    ],
)
def test_the_transparent_value_of_grey_is_in_units_of_the_file(bits, row, key, greys) -> None:
    content = png(len(greys), bits, 0, row, struct.pack(">H", key))
    assert pixels(content) == [[[grey] * 3 for grey in greys]]


def test_the_transparent_value_of_sixteen_bit_rgb_is_in_units_of_the_file() -> None:
    row = struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 0x3412, 0x7856, 0xBC9A)
    assert pixels(png(2, 16, 2, row, row[:6])) == [[WHITE, [0x34, 0x78, 0xBC]]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "TGA", "WEBP", "QOI", "SGI", "JPEG2000"])
def test_alpha_mixes_with_white(kind: str) -> None:
    image = Image.new("RGBA", (3, 1))
    image.putdata([(255, 0, 0, 255), (0, 0, 255, 0), (0, 0, 0, 51)])
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    assert pixels(saved(image, kind, **options)) == [[RED, WHITE, [204] * 3]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "TGA"])
def test_grey_with_alpha_mixes_with_white(kind: str) -> None:
    image = Image.new("LA", (2, 1))
    image.putdata([(100, 255), (0, 51)])
    assert pixels(saved(image, kind)) == [[[100] * 3, [204] * 3]]


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_entry_is_white(kind: str) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([0, 255, 0, 255, 0, 0])
    image.putpixel((1, 0), 1)
    assert pixels(saved(image, kind, transparency=0)) == [[WHITE, RED]]


def test_what_the_first_frame_of_a_gif_leaves_free_is_white() -> None:
    """A canvas of 4 x 3 whose first frame is 2 x 1, at (1, 1); palette entry 0 is green."""
    image = Image.new("P", (2, 1), 1)
    image.putpalette([0, 255, 0, 255, 0, 0])
    content = bytearray(saved(image, "GIF"))
    content[6:10] = struct.pack("<HH", 4, 3)
    start = content.index(b"\x2c" + bytes(4) + struct.pack("<HH", 2, 1))
    content[start + 1 : start + 5] = struct.pack("<HH", 1, 1)
    expected = [[WHITE] * 4, [WHITE, RED, RED, WHITE], [WHITE] * 4]
    assert pixels(bytes(content)) == expected


def bmp(data: bytes) -> bytes:
    """Two pixels of 32 bits with an alpha mask (BITMAPV4HEADER, BI_BITFIELDS)."""
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, 2, 1, 1, 32, 3, 8, 0, 0, 0, 0) + masks
    return b"BM" + struct.pack("<IHHI", 130, 0, 0, 122) + header.ljust(108, b"\0") + data


def tga(data: bytes) -> bytes:
    """Two pixels of 32 bits."""
    return struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 2, 1, 32, 0) + data


@pytest.mark.parametrize("file", [bmp, tga])
def test_alpha_that_hides_everything_is_unused_in_bmp_and_tga(file) -> None:
    blue_green_red = bytes([0, 0, 255]), bytes([0, 255, 0])
    assert pixels(file(b"\0".join(blue_green_red) + b"\0")) == [[RED, GREEN]]
    assert pixels(file(b"\xff".join(blue_green_red) + b"\0")) == [[RED, WHITE]]


def test_a_png_that_shows_nothing_is_white() -> None:
    assert pixels(saved(Image.new("RGBA", (1, 1), (255, 0, 0, 0)), "PNG")) == [[WHITE]]
