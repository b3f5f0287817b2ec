"""Every mode becomes RGB that shows what the image shows."""

from __future__ import annotations

import io
import struct

import numpy as np
import PIL
import pytest
from PIL import Image, ImageCms

from qvft.data.images.rgb import to_rgb
from qvft.data.images.suppress_warnings import quiet_pillow

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
    if mode == "YCbCr" and int(PIL.__version__.partition(".")[0]) < 13:
        pytest.skip("Pillow 12 cannot read the uncompressed TIFF that it writes")
    kind = "TIFF" if mode in ("CMYK", "YCbCr", "LAB") else "PNG"
    assert to_rgb(reopened(Image.new(mode, (3, 2)), kind)).mode == "RGB"


@pytest.mark.parametrize("mode", ["La", "RGBa", "PA", "I", "F", "I;16", "I;16B", "HSV", "RGBX"])
def test_modes_drawn_in_memory_become_rgb(mode: str) -> None:
    assert to_rgb(Image.new(mode, (3, 2))).mode == "RGB"


def tiff(bits: int, sample_format: int, photometric: int, data: bytes, **more: int) -> Image.Image:
    """An opened TIFF of one row of grey, uncompressed; see TIFF 6.0, sections 2 and 19."""
    tags = {256: len(data) * 8 // bits, 257: 1, 258: bits, 259: 1, 262: photometric}
    tags |= {273: 8 + 2 + 10 * 12 + 4, 277: 1, 278: 1, 279: len(data), 339: sample_format}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    header = b"II*\0" + struct.pack("<IH", 8, len(tags))
    return Image.open(io.BytesIO(header + entries + bytes(4) + data))


UNSIGNED, SIGNED, FLOAT = 1, 2, 3
WHITE_IS_ZERO, BLACK_IS_ZERO = 0, 1


def greys(image: Image.Image) -> list[int]:
    return [pixel[0] for pixel in pixels(image)[0]]


def test_unsigned_grey_of_32_bits_is_not_taken_for_negative() -> None:
    data = struct.pack("<3I", 0, 2**31, 2**32 - 1)
    assert greys(tiff(32, UNSIGNED, BLACK_IS_ZERO, data)) == [0, 128, 255]


def test_signed_grey_of_16_bits_keeps_its_order() -> None:
    data = struct.pack("<3h", -1000, 0, 1000)
    assert greys(tiff(16, SIGNED, BLACK_IS_ZERO, data)) == [0, 128, 255]


def test_floats_with_white_as_zero_are_inverted() -> None:
    assert greys(tiff(32, FLOAT, WHITE_IS_ZERO, struct.pack("<3f", 0, 0.2, 1))) == [255, 204, 0]


def test_twelve_bits_use_their_own_range() -> None:
    """Three bytes hold two values: 0x000 and 0xfff."""
    image = tiff(12, UNSIGNED, BLACK_IS_ZERO, b"\x00\x0f\xff")
    assert greys(image) == [0, 255]


@pytest.mark.parametrize(
    ("bits", "data", "expected"),
    [(1, b"\x0f", [255] * 4 + [0] * 4), (4, b"\xf3", [0, 204]), (8, b"\xf3\x00", [12, 255])],
)
def test_white_as_zero_of_up_to_8_bits(bits: int, data: bytes, expected: list[int]) -> None:
    assert greys(tiff(bits, UNSIGNED, WHITE_IS_ZERO, data)) == expected


def test_floats_of_the_widest_range_do_not_overflow() -> None:
    largest = float(np.finfo(np.float32).max)
    assert greys(reopened(grey([[-largest, 0, largest]], np.float32), "TIFF")) == [0, 128, 255]


def test_a_small_range_far_from_zero_keeps_its_steps() -> None:
    """Floats of 32 bits would round 2**30 + 1 to 2**30."""
    values = [[2**30, 2**30 + 1, 2**30 + 2]]
    assert greys(reopened(grey(values, np.int32), "TIFF")) == [0, 128, 255]


def test_a_map_of_16_bits_has_its_whole_range_and_one_bright_pixel_counts() -> None:
    """No percentile is cut off, so that a result never depends on how many pixels are bright."""
    assert greys(reopened(grey([[0, 100, 200, 51000]], np.uint16))) == [0, 0, 1, 255]


@pytest.mark.parametrize("maximum", [1023, 4095, 65535])
def test_pgm_of_more_than_8_bits(maximum: int) -> None:
    content = b"P5\n3 1\n%d\n" % maximum + struct.pack(">3H", 0, maximum // 5, maximum)
    assert greys(Image.open(io.BytesIO(content))) == [0, 51, 255]


@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG2000", {}), ("TIFF", {"compression": "tiff_lzw"}), ("TIFF", {"tiffinfo": {317: 2}})],
)
def test_deep_grey_in_other_files(kind: str, options: dict) -> None:
    values = np.arange(0, 40_000, 100, dtype=np.uint16).reshape(20, 20)
    expected = np.rint(values / values.max() * 255).astype(int)
    assert np.asarray(pixels(reopened(grey(values, np.uint16), kind, **options)))[
        ..., 0
    ].tolist() == (expected.tolist())


D50_TO_SRGB = np.array(
    [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ]
)
"""Source: brucelindbloom.com, RGB/XYZ matrices, sRGB adapted to D50 (Bradford)."""


def srgb(lightness: float, a: float, b: float) -> np.ndarray:
    """CIE L*a*b* under D50 as sRGB of 8 bits; IEC 61966-2-1 and CIE 15, 8.2.1."""
    middle = (lightness + 16) / 116
    roots = np.array([middle + a / 500, middle, middle - b / 200])
    limit = 6 / 29
    xyz = np.where(roots > limit, roots**3, 3 * limit**2 * (roots - 4 / 29))
    linear = np.clip(D50_TO_SRGB @ (xyz * [0.9642, 1.0, 0.8249]), 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize(
    ("lightness", "a", "b"),
    [(0, 0, 0), (128, 0, 0), (255, 0, 0), (135, 60, 40), (153, -40, 30), (179, 20, 60)],
)
def test_lab_becomes_the_srgb_of_its_definition(lightness: int, a: int, b: int) -> None:
    """In the file L* has 255 steps and a*, b* are signed bytes; TIFF 6.0, section 23."""
    image = Image.new("LAB", (1, 1), (lightness, a + 128, b + 128))
    shown = pixels(reopened(image, "TIFF"))[0][0]
    # Two levels: the transform goes through tables of 8 bits.
    assert np.abs(np.array(shown) - srgb(lightness / 2.55, a, b)).max() <= 2


def test_a_profile_of_rgb_is_not_applied() -> None:
    """As where the checkpoints were trained. This one says that red is blue and blue is red."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace(b"rXYZ", b"-XYZ").replace(b"bXYZ", b"rXYZ").replace(b"-XYZ", b"bXYZ")
    assert swapped != srgb
    image = reopened(Image.new("RGB", (1, 1), (10, 200, 30)), icc_profile=swapped)
    assert pixels(image) == [[[10, 200, 30]]]


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_cmyk_is_not_taken_for_its_negative(kind: str) -> None:
    """JPEGs hold it inverted, by Adobe's convention; TIFFs do not."""
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    shown = pixels(reopened(image, kind))[8][8]
    # Two levels, for JPEG at its usual quality of one even colour.
    assert np.abs(np.array(shown) - (255, 0, 0)).max() <= 2
