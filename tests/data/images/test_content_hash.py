"""Content hashes: an image is its bytes or its pixels, whatever it is called."""

from __future__ import annotations

import hashlib
import io
import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from qvft.data.images import content_hash
from qvft.data.images.content_hash import content_id, encoded_hash, pixel_ids, pixels_id
from qvft.data.sample import ImageFile, ImageInMemory
from qvft.errors import ImageError


@dataclass(frozen=True)
class InDataset:
    """An image whose encoded bytes a dataset holds."""

    data: bytes
    name: str = "row 1"

    def encoded(self) -> bytes:
        return self.data

    def open(self) -> Image.Image:
        return Image.open(io.BytesIO(self.data))


@dataclass(frozen=True)
class Made:
    """An image made by code, which gives it an id of its own."""

    colour: str
    name: str = "made"
    content_id: str = "made:7"

    def open(self) -> Image.Image:
        return Image.new("RGB", (4, 4), self.colour)


@pytest.fixture
def red(tmp_path: Path) -> Path:
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_a_file_is_its_bytes_whatever_it_is_called(red: Path) -> None:
    other = red.with_name("b.png")
    other.write_bytes(red.read_bytes())
    expected = hashlib.sha256(red.read_bytes()).hexdigest()
    for path in (red, other):
        assert encoded_hash(ImageFile(path)) == content_id(ImageFile(path)) == expected
        assert pixels_id(ImageFile(path)) == f"bytes:{expected}"


@pytest.mark.parametrize("age", [0, 3600])
def test_a_file_that_is_replaced_is_another_image(
    red: Path, monkeypatch: pytest.MonkeyPatch, age: float
) -> None:
    """Whether it was written just now or long ago: then it is read once while it stays."""
    now = time.time()
    monkeypatch.setattr(content_hash.time, "time", lambda: now + age)
    before, times = encoded_hash(ImageFile(red)), red.stat()
    time.sleep(0.02)  # file systems count time in steps of up to 10 ms
    Image.new("RGB", (4, 4), "blue").save(red)
    os.utime(red, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert encoded_hash(ImageFile(red)) != before


def test_a_file_that_stays_is_read_once(red: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    then, reads = time.time() + 3600, []
    monkeypatch.setattr(content_hash.time, "time", lambda: then)
    monkeypatch.setattr(content_hash, "sha256_file", lambda path: reads.append(path) or "ab")
    assert [encoded_hash(ImageFile(red)) for _ in range(3)] == ["ab"] * 3
    assert reads == [red]


def test_an_image_in_a_dataset_is_that_of_a_file_of_the_same_bytes(red: Path) -> None:
    assert pixels_id(InDataset(red.read_bytes())) == pixels_id(ImageFile(red))
    assert content_id(InDataset(red.read_bytes())) == content_id(ImageFile(red))


def test_an_image_in_memory_is_its_pixels_and_size() -> None:
    def held(*size: int, colour: str = "red", mode: str = "RGB") -> str:
        return pixels_id(ImageInMemory(Image.new(mode, size, colour)))

    assert held(4, 2) == held(4, 2) == held(4, 2, mode="RGBA")
    assert len({held(4, 2), held(2, 4), held(4, 2, colour="blue")}) == 3
    same = {content_id(ImageInMemory(Image.new("RGB", (4, 4)))) for _ in range(2)}
    assert len(same) == 1 and None not in same


def test_an_image_made_by_code_has_its_own_id_and_is_cached_by_its_pixels() -> None:
    assert content_id(Made("red")) == content_id(Made("blue")) == "made:7"
    assert pixels_id(Made("red")) == pixels_id(Made("red", content_id="made:8"))
    assert pixels_id(Made("red")) != pixels_id(Made("blue"))


def test_an_unreadable_image_stands_among_the_ids_as_its_error(red: Path) -> None:
    sources = [ImageFile(red), ImageFile(red.with_name("absent.png"))]
    found = pixel_ids(sources)
    assert list(found) == [source.name for source in sources]
    assert str(found[sources[0].name]).startswith("bytes:")
    assert isinstance(found[sources[1].name], ImageError)
