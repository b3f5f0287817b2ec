"""Keys: whatever the features depend on is in them, and nothing else."""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor

from qvft.data.features.cache_spec import (
    DECODING,
    FeatureSpec,
    preprocessing_of,
    space_of,
    weights_sha256,
)
from qvft.data.features.content import content_of, contents_of
from qvft.data.features.key import features_key
from qvft.data.images.decoding import decode
from qvft.data.sample import ImageFile, ImageInMemory
from qvft.errors import DataError, ImageError

CHANGES = {
    "vit_sha256": "cd" * 32,
    "preprocessing": {"settings": {"size": {"height": 9, "width": 8}}, "processor": "Small"},
    "compute_dtype": "bfloat16",
    "stored_dtype": "int8",
    "patches": 4,
    "width": 6,
    "vit_settings": {"layer_norm_eps": 1e-6},
}


def test_the_changes_cover_every_part_of_a_space_but_its_name() -> None:
    assert {one.name for one in fields(FeatureSpec)} - {"vit"} == set(CHANGES)


@pytest.mark.parametrize("part", CHANGES)
def test_a_key_changes_with_every_part_of_the_space(space: FeatureSpec, part: str) -> None:
    other = replace(space, **{part: CHANGES[part]})
    assert features_key(other, "bytes:1") != features_key(space, "bytes:1")


def test_what_a_vit_is_called_changes_no_key(space: FeatureSpec) -> None:
    other = replace(space, vit="the same ViT in another folder")
    assert features_key(other, "bytes:1") == features_key(space, "bytes:1")


def test_a_key_changes_with_content_view_and_augmentation(space: FeatureSpec) -> None:
    keys = {
        features_key(space, "bytes:1"),
        features_key(space, "bytes:2"),
        features_key(space, "bytes:1", view=1, augmentation={"seed": 1}),
        features_key(space, "bytes:1", view=2, augmentation={"seed": 1}),
        features_key(space, "bytes:1", view=1, augmentation={"seed": 2}),
    }
    assert len(keys) == 5
    assert {len(key) for key in keys} == {32}


def test_a_view_without_its_augmentation_is_a_mistake(space: FeatureSpec) -> None:
    with pytest.raises(AssertionError):
        features_key(space, "bytes:1", view=1)
    with pytest.raises(AssertionError):
        features_key(space, "bytes:1", augmentation={"seed": 1})


def test_weights_are_told_apart_by_name_type_shape_and_value() -> None:
    plain = [("a", torch.tensor([[1.0, 2.0]])), ("b", torch.tensor([3], dtype=torch.int32))]
    others = [
        [("c", plain[0][1]), plain[1]],
        [("a", plain[0][1].view(torch.int32)), plain[1]],
        [("a", plain[0][1].T), plain[1]],
        [("a", torch.tensor([[1.0, 2.5]])), plain[1]],
        plain[:1],
    ]
    assert weights_sha256(reversed(plain)) == weights_sha256(plain)
    assert weights_sha256(plain) not in {weights_sha256(other) for other in others}


def test_a_saved_image_processor_is_the_same_preprocessing(
    tiny_folder: Path, tmp_path: Path
) -> None:
    processor = AutoImageProcessor.from_pretrained(tiny_folder)
    processor.save_pretrained(tmp_path)
    again = AutoImageProcessor.from_pretrained(tmp_path)
    assert preprocessing_of(again) == preprocessing_of(processor)
    again.image_mean = [0.5, 0.5, 0.5]
    assert preprocessing_of(again) != preprocessing_of(processor)


def test_a_file_is_its_bytes_whatever_it_is_called(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    expected = "bytes:" + hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()
    assert content_of(ImageFile(tmp_path / "a.png")) == expected
    assert content_of(ImageFile(tmp_path / "b.png")) == expected


def test_a_file_that_is_replaced_is_another_image(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 4), "red").save(path)
    before, times = content_of(ImageFile(path)), path.stat()
    Image.new("RGB", (4, 4), "blue").save(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert content_of(ImageFile(path)) != before


@dataclass(frozen=True)
class InDataset:
    """An image whose encoded bytes a dataset holds."""

    data: bytes
    name: str = "row 1"

    def encoded(self) -> bytes:
        return self.data

    def open(self) -> Image.Image:
        return Image.open(io.BytesIO(self.data))


def test_an_image_in_a_dataset_is_that_of_a_file_of_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 4), "red").save(path)
    assert content_of(InDataset(path.read_bytes())) == content_of(ImageFile(path))


def test_an_image_in_memory_is_its_pixels_and_size() -> None:
    def held(*size: int, colour: str = "red", mode: str = "RGB") -> str:
        return content_of(ImageInMemory(Image.new(mode, size, colour)))

    assert held(4, 2) == held(4, 2) == held(4, 2, mode="RGBA")
    assert len({held(4, 2), held(2, 4), held(4, 2, colour="blue")}) == 3


def test_an_unreadable_image_stands_among_the_contents_as_its_error(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.png")
    sources = [ImageFile(tmp_path / "a.png"), ImageFile(tmp_path / "absent.png")]
    found = contents_of(sources)
    assert list(found) == [source.name for source in sources]
    assert str(found[sources[0].name]).startswith("bytes:")
    error = found[sources[1].name]
    assert isinstance(error, ImageError) and "no such file" in str(error)


def test_a_description_of_another_layout_is_refused() -> None:
    with pytest.raises(DataError, match="layout 1"):
        space_of({"vit": "x", "layout": 2}, where="space.json")


def test_what_decoding_gives_is_that_of_its_number(tmp_path: Path) -> None:
    """Whoever changes what `decode` gives raises `DECODING`: else stale features would be read.

    The files are lossless, so that no codec's version counts.
    """
    ramp = (np.arange(6 * 8 * 4) * 37 % 256).astype(np.uint8).reshape(6, 8, 4)
    Image.fromarray(ramp, "RGBA").save(tmp_path / "transparent.png")
    Image.fromarray(ramp[..., 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(ramp, "CMYK").save(tmp_path / "ink.tif")
    exif = Image.Exif()
    exif[274] = 6  # orientation: turn by 90 degrees
    Image.fromarray(ramp[..., :3].copy()).save(tmp_path / "turned.png", exif=exif)
    digest = hashlib.sha256()
    for name in ("transparent.png", "deep.png", "ink.tif", "turned.png"):
        image = decode(ImageFile(tmp_path / name))
        digest.update(f"{name} {image.size}".encode() + image.tobytes())
    assert (DECODING, digest.hexdigest()[:16]) == (1, "78f8d1f122b32c68")
