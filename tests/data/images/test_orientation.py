"""Images are upright whatever holds them, and however damaged their EXIF is."""

from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image, ImageDraw

from qvft.data.images.decoding import check, decode

pytestmark = pytest.mark.filterwarnings("error")

T = Image.Transpose
FROM_UPRIGHT = {
    2: T.FLIP_LEFT_RIGHT,
    3: T.ROTATE_180,
    4: T.FLIP_TOP_BOTTOM,
    5: T.TRANSPOSE,
    6: T.ROTATE_90,
    7: T.TRANSVERSE,
    8: T.ROTATE_270,
}
"""From the picture as seen to how a camera stores it, by EXIF orientation."""

EXACT: dict[str, dict] = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}}
LOSSY: dict[str, dict] = {kind: {"quality": 100} for kind in ("JPEG", "MPO", "AVIF")}


class Encoded:
    """An image file in memory; its EXIF is read before its pixels if that is asked for."""

    name = "encoded"

    def __init__(self, content: bytes, *, exif_first: bool = False) -> None:
        self.content, self.exif_first = content, exif_first

    def open(self) -> Image.Image:
        image = Image.open(io.BytesIO(self.content))
        if self.exif_first:
            with suppress(Exception):  # damage that others have met before
                image.getexif().get_ifd(0x8769)
        return image


def picture() -> Image.Image:
    """40 x 24, white with a red corner at the top left; edges on the 8-pixel grid of JPEG."""
    image = Image.new("RGB", (40, 24), "white")
    ImageDraw.Draw(image).rectangle((0, 0, 15, 7), fill="red")
    return image


def saved(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", [*EXACT, *LOSSY])
def test_exif_orientation_is_applied(orientation: int, kind: str) -> None:
    upright, exif = picture(), Image.Exif()
    exif[0x0112] = orientation
    stored = upright
    if orientation in FROM_UPRIGHT:
        stored = upright.transpose(FROM_UPRIGHT[orientation])
    content = saved(stored, kind, exif=exif, **(EXACT | LOSSY)[kind])
    image = decode(Encoded(content))
    assert image.size == (40, 24)
    difference = np.abs(np.asarray(image).astype(int) - np.asarray(upright))
    if kind in EXACT:
        assert difference.max() == 0
    else:  # colour is stored at half size, so edges are soft; a misplaced corner gives 255 * 2 / 3
        assert difference.mean() < 5


@pytest.mark.parametrize("orientation", [6, 8])
def test_orientation_in_xmp_is_applied_where_exif_has_none(orientation: int) -> None:
    xmp = f'<x tiff:Orientation="{orientation}"/>'.encode()
    upright = picture()
    content = saved(upright.transpose(FROM_UPRIGHT[orientation]), "TIFF", tiffinfo={700: xmp})
    assert decode(Encoded(content)).tobytes() == upright.tobytes()


SHORT, LONG, TEXT, RATIONAL, BYTES, SIGNED = 3, 4, 2, 5, 7, 9
ORIENTATION, EXIF_IFD, GPS_IFD = 0x0112, 0x8769, 0x8825


def entry(tag: int, kind: int, count: int, value: bytes) -> bytes:
    return struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")


def directory(*entries: bytes, count: int | None = None) -> bytes:
    number = len(entries) if count is None else count
    return b"II*\0" + struct.pack("<IH", 8, number) + b"".join(entries) + bytes(4)


SIX = entry(ORIENTATION, SHORT, 1, b"\x06")
LIES = struct.pack("<I", 99_999)
NEGATIVE = struct.pack("<i", -5)

DAMAGED = {
    "out of range": directory(entry(ORIENTATION, SHORT, 1, b"\x09")),
    "zero": directory(entry(ORIENTATION, SHORT, 1, b"\0")),
    "bytes": directory(entry(ORIENTATION, BYTES, 4, b"\x06")),
    "text": directory(entry(ORIENTATION, TEXT, 2, b"6")),
    "of a type that is none": directory(entry(ORIENTATION, 99, 1, b"\x06")),
    "outside the file": directory(entry(ORIENTATION, RATIONAL, 1, LIES)),
    "other byte order mark": b"XX" + directory(SIX)[2:],
    "directory outside": b"II*\0" + LIES,
    "cut": b"II*\0\x08",
    "noise": bytes(range(90)),
}
DAMAGED_BESIDE = {
    "nothing": directory(SIX),
    "EXIF directory outside": directory(SIX, entry(EXIF_IFD, LONG, 1, LIES)),
    "EXIF directory at a negative place": directory(SIX, entry(EXIF_IFD, SIGNED, 1, NEGATIVE)),
    "EXIF directory is text": directory(SIX, entry(EXIF_IFD, TEXT, 4, b"abcd")),
    "GPS directory is the first": directory(SIX, entry(GPS_IFD, LONG, 1, b"\x08")),
    "more entries promised": directory(SIX, count=999),
}


def with_exif(image: Image.Image, kind: str, exif: bytes) -> bytes:
    """A file with this EXIF as it is; Pillow's writers would look into it."""
    if kind == "WEBP":
        return saved(image, kind, exif=b"Exif\0\0" + exif, lossless=True)
    content = saved(image, kind)
    if kind == "JPEG":
        body = b"Exif\0\0" + exif
        return content[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + content[2:]
    body = b"eXIf" + exif
    chunk = struct.pack(">I", len(exif)) + body + struct.pack(">I", zlib.crc32(body))
    return content[:33] + chunk + content[33:]


@pytest.mark.parametrize("exif_first", [False, True])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("damage", [*DAMAGED, *DAMAGED_BESIDE])
def test_damaged_exif_costs_at_most_the_orientation(damage, kind, exif_first) -> None:
    exif = (DAMAGED | DAMAGED_BESIDE)[damage]
    source = Encoded(with_exif(picture(), kind, exif), exif_first=exif_first)
    assert decode(source).size == ((40, 24) if damage in DAMAGED else (24, 40))
    check(source)


@pytest.mark.parametrize("exif_first", [False, True])
@pytest.mark.parametrize(
    "damaged",
    [
        entry(EXIF_IFD, SIGNED, 1, NEGATIVE),
        entry(EXIF_IFD, LONG, 1, LIES),
        entry(EXIF_IFD, TEXT, 4, b"abcd"),
        entry(GPS_IFD, SIGNED, 1, NEGATIVE),
        entry(700, SHORT, 2, b"\1\0\2\0"),  # XMP that is no text
    ],
    ids=["negative", "outside", "text", "GPS negative", "XMP of numbers"],
)
def test_damaged_exif_of_a_tiff_does_not_cost_its_pixels(damaged: bytes, exif_first: bool) -> None:
    source = Encoded(tiff_with(damaged), exif_first=exif_first)
    assert np.asarray(decode(source)).tolist() == [[[10] * 3, [200] * 3]]
    check(source)


def tiff_with(last: bytes) -> bytes:
    """Two grey pixels of 8 bits, uncompressed, and one more entry."""
    values = {256: 2, 257: 1, 258: 8, 259: 1, 262: 1, 273: 8 + 2 + 9 * 12 + 4, 277: 1, 279: 2}
    entries = [entry(tag, LONG, 1, struct.pack("<I", value)) for tag, value in values.items()]
    return directory(*sorted([*entries, last], key=lambda one: one[1::-1])) + bytes([10, 200])
