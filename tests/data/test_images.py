"""Decoding: every mode and every kind of damage has one outcome."""

from __future__ import annotations

import io
import json
import struct
import threading
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from qvft.data.images import check, decode
from qvft.data.quiet import quiet_pillow
from qvft.data.sample import ImageFile
from qvft.errors import ImageError

pytestmark = pytest.mark.filterwarnings("error")


@dataclass(frozen=True)
class Encoded:
    """An image source in memory."""

    content: bytes
    name: str = "encoded"

    def open(self) -> Image.Image:
        return Image.open(io.BytesIO(self.content))


def encoded(image: Image.Image, kind: str = "PNG", **options) -> Encoded:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return Encoded(stream.getvalue())


def test_awkward_files_have_the_outcomes_listed(shared_data: Path) -> None:
    folder = shared_data / "awkward_images"
    rows = json.loads((folder / "pillow_behaviour.json").read_text())
    assert len(rows) == 31
    for row in rows:
        source = ImageFile(folder / row["file"])
        if "error" in row:
            with pytest.raises(ImageError, match=row["file"]):
                decode(source)
            with pytest.raises(ImageError, match=row["file"]):
                check(source)
        else:
            image = decode(source)
            assert (image.mode, list(image.size)) == ("RGB", row["transposed_wh"]), row["file"]
            check(source)


def test_awkward_files_that_fail_say_why(shared_data: Path) -> None:
    causes = {
        "truncated_jpeg.jpg": "image file is truncated",
        "decompression_bomb.ico": "refused as a decompression bomb",
        "zero_width.gif": "not an image of a known format",
    }
    for name, cause in causes.items():
        with pytest.raises(ImageError, match=cause):
            decode(ImageFile(shared_data / "awkward_images" / name))


def test_sixteen_bit_grey_keeps_its_contrast(shared_data: Path) -> None:
    """Its values lie between 291 and 694: clipping at 255 would leave a white image."""
    image = decode(ImageFile(shared_data / "awkward_images" / "16bit.cropped.tif"))
    assert image.getextrema() == ((0, 255), (0, 255), (0, 255))


@dataclass(frozen=True)
class Drawn:
    """An image that never was a file."""

    image: Image.Image
    name: str = "drawn"

    def open(self) -> Image.Image:
        return self.image


def test_decoding_leaves_the_source_image_as_it_was() -> None:
    image = Image.new("RGB", (2, 2), "red")
    decode(Drawn(image)).putpixel((0, 0), (0, 0, 0))
    assert image.getpixel((0, 0)) == (255, 0, 0)


# Where the top left corner (red) of a 4 x 2 picture lies in the file, by EXIF orientation.
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(orientation: int, kind: str) -> None:
    upright = Image.new("RGB", (40, 20), "white")
    ImageDraw.Draw(upright).rectangle((0, 0, 9, 9), fill="red")
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(back[orientation]) if orientation in back else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    image = decode(encoded(stored, kind, exif=exif, **options))
    assert image.size == (40, 20)
    assert image.tobytes() == upright.tobytes()


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    source = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(source).getpixel((0, 0)) == (255, 0, 0)


def test_too_many_pixels_are_refused_before_decoding() -> None:
    """The header promises 8,000 x 8,000 pixels; there is no pixel data to trip over."""
    header = struct.pack(">IIBBBBB", 8000, 8000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    png += struct.pack(">I", zlib.crc32(chunk)) + struct.pack(">I", 0) + b"IDAT"
    with pytest.raises(ImageError, match="8000 x 8000 pixels; expected at most 1000000 in all"):
        decode(Encoded(png), max_pixels=1_000_000)


def test_pillows_bomb_warning_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    source = encoded(Image.new("L", (20, 20)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)  # warns from 300, raises from 600
    with pytest.raises(ImageError, match="decompression bomb"):
        decode(source)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
def test_truncated_files_are_errors(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise), kind).content
    for read in (decode, check):
        with pytest.raises(ImageError, match="encoded: "):
            read(Encoded(whole[: len(whole) // 2]))


def test_check_finds_a_jpeg_that_ends_early() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise), "JPEG").content
    check(Encoded(whole))
    with pytest.raises(ImageError, match="truncated"):
        check(Encoded(whole[:-200]))


def test_postscript_is_refused_because_decoding_would_run_it() -> None:
    source = encoded(Image.new("RGB", (4, 4)), "EPS")
    with pytest.raises(ImageError, match="a file of format EPS"):
        decode(source)


def test_an_image_without_pixels_is_an_error() -> None:
    with pytest.raises(ImageError, match=r"no pixels \(0 x 5\)"):
        decode(Drawn(Image.new("RGB", (0, 5))))


def test_a_missing_file_a_folder_and_an_empty_file_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    causes = {"none.png": "no such file", ".": "a folder", "empty.png": "not an image"}
    for name, cause in causes.items():
        with pytest.raises(ImageError, match=cause):
            decode(ImageFile(tmp_path / name))


def test_overlapping_quiet_blocks_of_threads_restore_the_filters() -> None:
    before = list(warnings.filters)
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with quiet_pillow():
            inside.set()
            leave.wait(5)

    thread = threading.Thread(target=stay)
    with quiet_pillow():
        thread.start()
        inside.wait(5)
    warnings.warn("dropped", DeprecationWarning, stacklevel=1)
    leave.set()
    thread.join()
    assert list(warnings.filters) == before
