"""Damage of any kind ends in an image or in one `ImageError`, and `check` and `decode` agree."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from dicom_files import dicom_content
from PIL import Image

from qvft.data.images.decoding import FORMATS, check, decode
from qvft.data.images.opening import register_heic
from qvft.data.sample import ImageFile
from qvft.errors import ImageError

pytestmark = pytest.mark.filterwarnings("error")

MUTATIONS = 60
"""Damaged copies of each file; half of them are read from memory, half from disk."""


@dataclass(frozen=True)
class InMemory:
    content: bytes
    name: str = "damaged"

    def encoded(self) -> bytes:
        return self.content

    def open(self) -> Image.Image:
        return Image.open(io.BytesIO(self.content))


def files() -> Iterator[tuple[str, str, dict]]:
    """Of each format every way of writing it that has a reader of its own: kind, mode, options."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "maker", 72.0
    yield from (("JPEG", mode, {"exif": exif}) for mode in ("RGB", "L", "CMYK"))
    yield "JPEG", "RGB", {"progressive": True}
    yield from (("PNG", mode, {"exif": exif}) for mode in ("1", "P", "LA", "RGBA", "I;16"))
    yield from (("TIFF", mode, {"exif": exif}) for mode in ("1", "I;16", "F", "LAB", "CMYK", "RGB"))
    for compression in ("jpeg", "packbits", "tiff_lzw", "tiff_adobe_deflate"):
        yield "TIFF", "RGB", {"compression": compression}
    yield "TIFF", "1", {"compression": "group4"}
    yield from (("WEBP", "RGBA", {"lossless": lossless}) for lossless in (False, True))
    yield from (("GIF", "P", {"save_all": animated}) for animated in (False, True))
    yield "MPO", "RGB", {"save_all": True}
    yield "AVIF", "RGB", {"exif": exif}
    yield from (("BMP", mode, {}) for mode in ("1", "P", "RGB"))
    yield from (("TGA", "RGBA", {"compression": how}) for how in (None, "tga_rle"))
    yield from (("PCX", mode, {}) for mode in ("1", "P", "RGB"))
    yield from (("PPM", mode, {}) for mode in ("1", "RGB", "F"))
    yield from (("SGI", "RGB", {"bpc": width}) for width in (1, 2))
    yield from (("ICO", "RGBA", {"bitmap_format": inner}) for inner in ("bmp", "png"))
    yield from ((kind, "RGB", {}) for kind in ("DIB", "JPEG2000", "QOI"))
    if find_spec("pillow_heif"):
        yield "HEIF", "RGB", {}
    if find_spec("pydicom"):
        yield from (("DICOM", mode, {}) for mode in ("L", "RGB"))


def encoded(kind: str, mode: str, options: dict) -> bytes:
    y, x = np.mgrid[0:21, 0:33]
    colours = np.stack([x * 7, y * 12, x * y % 256], -1).astype(np.uint8)
    image = Image.fromarray(colours)
    image = image.quantize(16) if mode == "P" else image.convert(mode)
    if kind == "DICOM":
        return dicom_content(np.asarray(image), WindowCenter=99, WindowWidth=150)
    if kind == "HEIF":
        register_heic()
    if options.get("save_all"):
        options = options | {"append_images": [image.rotate(180)]}
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Cut short, or with bytes changed, lost or added, mostly near the start."""
    if chance.random() < 0.2:
        return content[: chance.randrange(len(content))]
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4))):
        place = chance.randrange(min(len(changed), chance.choice((64, 400, len(changed)))))
        how = chance.random()
        if how < 0.4:
            changed[place] ^= 1 << chance.randrange(8)
        elif how < 0.6:
            changed[place] = chance.choice((0, 1, 127, 128, 255))
        elif how < 0.8:
            changed[place : place + 4] = chance.choice((b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"))
        elif how < 0.9:
            del changed[place : place + chance.randrange(1, 9)]
        else:
            changed[place:place] = chance.randbytes(chance.randrange(1, 9))
    return bytes(changed)


def outcome(read, source) -> str:
    try:
        image = read(source, max_pixels=1_000_000)
    except ImageError as error:
        assert str(source.name) in str(error)
        return "error"
    assert image is None or image.mode == "RGB"
    return "image"


CASES = list(files())


def test_every_format_is_damaged_here() -> None:
    assert {"HEIF", "DICOM"} | {kind for kind, _, _ in CASES} == {"DICOM"} | FORMATS


@pytest.mark.parametrize(
    ("kind", "mode", "options"), CASES, ids=[f"{n}-{c[0]}-{c[1]}" for n, c in enumerate(CASES)]
)
def test_damage_has_one_of_two_ends(kind, mode, options, tmp_path: Path, capfd) -> None:
    content, chance = encoded(kind, mode, options), random.Random(0)
    assert outcome(decode, InMemory(content)) == "image"
    for number in range(MUTATIONS):
        broken = damaged(content, chance)
        file = tmp_path / f"{number}"
        file.write_bytes(broken)
        source = ImageFile(file) if number % 2 else InMemory(broken)
        assert outcome(check, source) == outcome(decode, source), broken
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_check_and_decode_agree_wherever_a_jpeg_is_cut(options: dict) -> None:
    """`check` reads JPEGs at an eighth of their size, and must still read all of them."""
    whole = encoded("JPEG", "RGB", options)
    for length in range(0, len(whole), 7):
        cut = InMemory(whole[:length])
        assert outcome(check, cut) == outcome(decode, cut) == "error", length
