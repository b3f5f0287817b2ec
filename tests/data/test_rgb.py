"""Every mode becomes RGB that shows what the image shows."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from qvft.data.quiet import quiet_pillow
from qvft.data.rgb import to_rgb

pytestmark = pytest.mark.filterwarnings("error")


def reopened(image: Image.Image, kind: str = "PNG", **options) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return Image.open(stream)


def pixels(image: Image.Image) -> list:
    with quiet_pillow():
        image.load()
        return np.asarray(to_rgb(image)).tolist()


def grey(values, dtype) -> Image.Image:
    return Image.fromarray(np.array(values, dtype=dtype))


@pytest.mark.parametrize(
    ("kind", "dtype", "values"),
    [
        ("PNG", np.uint16, [[1000, 1051, 1255]]),
        ("TIFF", np.uint16, [[1000, 1051, 1255]]),
        ("TIFF", np.int32, [[-1000, -949, -745]]),
        ("TIFF", np.float32, [[0.0, 0.2, 1.0]]),
    ],
)
def test_deep_grey_is_stretched_over_its_own_range(kind, dtype, values) -> None:
    assert pixels(reopened(grey(values, dtype), kind)) == [[[0] * 3, [51] * 3, [255] * 3]]


def test_deep_grey_of_one_value_is_black() -> None:
    assert pixels(reopened(grey([[700, 700]], np.uint16))) == [[[0] * 3, [0] * 3]]


def test_not_a_number_is_black_and_infinity_is_the_brightest() -> None:
    source = reopened(grey([[np.nan, 0.0, 1.0, np.inf]], np.float32), "TIFF")
    assert [pixel[0] for pixel in pixels(source)[0]] == [0, 0, 255, 255]


def test_sixteen_bit_tiff_with_white_as_zero_is_inverted() -> None:
    stream = io.BytesIO()
    grey([[0, 1000]], np.uint16).save(stream, "TIFF")
    content = stream.getvalue()
    entry = struct.pack("<HHI", 262, 3, 1)
    assert content.count(entry + struct.pack("<H", 1)) == 1
    inverted = content.replace(entry + struct.pack("<H", 1), entry + struct.pack("<H", 0))
    assert [pixel[0] for pixel in pixels(Image.open(io.BytesIO(inverted)))[0]] == [255, 0]


def test_transparent_value_of_deep_grey_is_white_and_outside_the_range() -> None:
    source = reopened(grey([[100, 200, 65535]], np.uint16), transparency=65535)
    assert [pixel[0] for pixel in pixels(source)[0]] == [0, 255, 255]


def test_transparency_lies_over_white() -> None:
    image = Image.new("RGBA", (3, 1))
    image.putdata([(255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 51)])
    assert pixels(reopened(image)) == [[[255, 0, 0], [255, 255, 255], [204, 204, 204]]]


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_a_transparent_colour_lies_over_white(mode: str) -> None:
    image = Image.new("RGB", (2, 1), (0, 0, 0))
    image.putpixel((1, 0), (102, 102, 102))
    converted = image.convert(mode)
    key = converted.getpixel((0, 0))
    assert pixels(reopened(converted, transparency=key)) == [[[255] * 3, [102] * 3]]


def test_palette_with_transparency_bytes_gives_no_warning() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    source = reopened(image, transparency=bytes([0, 255]))
    assert pixels(source) == [[[255, 255, 255], [40, 50, 60]]]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"])
def test_modes_that_have_a_file_become_rgb(mode: str) -> None:
    kind = "TIFF" if mode in ("CMYK", "YCbCr", "LAB") else "PNG"
    assert to_rgb(reopened(Image.new(mode, (3, 2)), kind)).mode == "RGB"


@pytest.mark.parametrize("mode", ["La", "RGBa", "PA", "I", "F", "I;16", "I;16B", "HSV", "RGBX"])
def test_modes_drawn_in_memory_become_rgb(mode: str) -> None:
    assert to_rgb(Image.new(mode, (3, 2))).mode == "RGB"
