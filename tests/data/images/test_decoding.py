"""Decoding: every mode and every kind of damage has one outcome."""

from __future__ import annotations

import io
import json
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qvft.data.images.decoding import check, decode
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


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "an empty file"),
        (b"\n<!DOCTYPE html><html></html>", "probably a HTML file.*not a web page"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC|decode"),
        (b"%PDF-1.7", "probably a PDF file"),
    ],
)
def test_files_that_are_no_images_are_told_by_their_first_bytes(
    tmp_path: Path, content: bytes, says: str
) -> None:
    path = tmp_path / "scan.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=says):
        decode(ImageFile(path))


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


@pytest.mark.parametrize(("side", "size"), [(None, (240, 160)), (80, (120, 80)), (81, (240, 160))])
def test_a_jpeg_is_decoded_no_smaller_than_asked(side: int | None, size: tuple[int, int]) -> None:
    jpeg = encoded(Image.new("RGB", (240, 160), "red"), "JPEG")
    assert decode(jpeg, least_side=side).size == size


def test_postscript_is_refused_because_decoding_would_run_it() -> None:
    source = encoded(Image.new("RGB", (4, 4)), "EPS")
    with pytest.raises(ImageError, match="a file of format EPS"):
        decode(source)


def test_an_image_without_pixels_is_an_error() -> None:
    with pytest.raises(ImageError, match=r"no pixels \(0 x 5\)"):
        decode(Drawn(Image.new("RGB", (0, 5))))


def test_a_missing_file_a_folder_and_an_empty_file_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    causes = {"none.png": "no such file", ".": "a folder", "empty.png": "an empty file"}
    for name, cause in causes.items():
        with pytest.raises(ImageError, match=cause):
            decode(ImageFile(tmp_path / name))


def test_a_decoded_image_carries_nothing_that_was_true_of_the_file_only() -> None:
    """An orientation left behind would turn the image a second time, in other hands."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image = decode(encoded(Image.new("RGB", (4, 2)), exif=exif, icc_profile=bytes(200)))
    assert (image.size, image.info, dict(image.getexif())) == ((2, 4), {}, {})


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF", "TIFF"])
def test_animations_and_pages_give_their_first_image(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    image = decode(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    # Two levels, for AVIF: it stores YCbCr of 8 bits.
    assert np.abs(np.asarray(image).astype(int) - (255, 0, 0)).max() <= 2


def test_an_animated_png_shows_the_picture_that_others_show_for_it() -> None:
    """Its default image is no frame of the animation."""
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("lime", "red", "blue")]
    options = {"save_all": True, "append_images": frames[1:], "default_image": True}
    assert decode(encoded(frames[0], **options)).getpixel((0, 0)) == (0, 255, 0)


def test_of_an_icons_sizes_the_largest_is_taken() -> None:
    image = Image.new("RGBA", (64, 64), "red")
    assert decode(encoded(image, "ICO", sizes=[(16, 16), (64, 64), (32, 32)])).size == (64, 64)


def test_the_limit_holds_for_a_picture_inside_an_icon() -> None:
    """The icon's own header has one byte a side."""
    inner = encoded(Image.new("L", (300, 400))).content
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inner), 22)
    with pytest.raises(ImageError, match="300 x 400 pixels"):
        decode(Encoded(struct.pack("<HHH", 0, 1, 1) + entry + inner), max_pixels=100_000)


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
def test_a_text_that_unpacks_to_too_much_is_refused(kind: bytes) -> None:
    body = kind + b"k\0" + (b"\1\0\0\0" if kind == b"iTXt" else b"\0")
    body += zlib.compress(bytes(2 * 2**20))
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    whole = encoded(Image.new("L", (2, 2))).content
    start = len(whole) - 12  # IEND
    for source in (whole[:33] + chunk + whole[33:], whole[:start] + chunk + whole[start:]):
        for read in (decode, check):
            with pytest.raises(ImageError, match="too large"):
                read(Encoded(source))


@pytest.mark.parametrize(
    ("name", "kind"), [("IMG_1.HEIC", "HEIC"), ("a/b.dcm", "DICOM"), ("c.svg", "SVG")]
)
def test_files_of_known_kinds_that_are_not_decoded_are_to_be_converted(name, kind) -> None:
    heic = struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic"
    with pytest.raises(ImageError, match=f"probably a {kind} file.*convert it to JPEG or PNG"):
        decode(Encoded(heic, name))


def test_a_good_image_may_have_the_wrong_ending() -> None:
    assert decode(Encoded(encoded(Image.new("L", (3, 2))).content, "x.heic")).size == (3, 2)


def test_a_name_in_the_wrong_case_is_told_the_right_one(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "scan.PNG")
    with pytest.raises(ImageError, match=r"no such file; .*did you mean scan\.PNG\?$"):
        decode(ImageFile(tmp_path / "scan.png"))
