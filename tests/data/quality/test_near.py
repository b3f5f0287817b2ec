"""Copies of images are found, other images are not; figures are in docs/data_quality.md."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from qvft.data.quality.alignment import differences
from qvft.data.quality.look import SIDE_PX, Look, look, perceptual_hash
from qvft.data.quality.near import MOST_DIFFERENCE, NEAREST, near_pairs


class Drawn:
    name = "drawn"

    def open(self) -> Image.Image:
        raise NotImplementedError


def scene(seed: int, *, colour: tuple[int, int, int] = (255, 255, 255)) -> Image.Image:
    """A smooth random picture of one colour's shades, with detail down to a 16th of its size."""
    noise = np.random.default_rng(seed).integers(0, 256, (16, 16), dtype=np.uint8)
    grey = np.asarray(Image.fromarray(noise).resize((320, 240), Image.Resampling.BICUBIC)) / 255
    return Image.fromarray((grey[..., None] * np.array(colour)).astype(np.uint8))


def seen(image: Image.Image) -> Look:
    return look(Drawn(), image.convert("RGB"))


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    stream.seek(0)
    return Image.open(stream)


def cropped(image: Image.Image, share: float) -> Image.Image:
    across, down = round(image.width * share), round(image.height * share)
    return image.crop((across, down, image.width - across, image.height - down))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "the same": lambda image: image,
    "JPEG 30": lambda image: jpeg(image, 30),
    "half": lambda image: image.resize((image.width // 2, image.height // 2)),
    "224 square": lambda image: image.resize((224, 224)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.9),
    "3 % off each side": lambda image: cropped(image, 0.03),
    "grey": lambda image: image.convert("L"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_among_other_images(change: str) -> None:
    originals = [scene(seed, colour=(250, 200, 160)) for seed in range(6)]
    looks = [seen(image) for image in originals] + [seen(CHANGES[change](originals[2]))]
    assert [(i, j) for i, j, _ in near_pairs(looks)] == [(2, 6)]


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        lambda image: image.transpose(Image.Transpose.ROTATE_180),
        lambda image: Image.eval(image, lambda value: 255 - value),
    ],
    ids=["mirrored", "upside down", "negative"],
)
def test_a_turned_or_inverted_image_is_another_one(
    change: Callable[[Image.Image], Image.Image],
) -> None:
    image = scene(0)
    assert near_pairs([seen(image), seen(change(image))]) == []


def test_the_same_shape_in_another_colour_is_another_image() -> None:
    assert near_pairs([seen(scene(0, colour=c)) for c in ((220, 60, 60), (60, 60, 220))]) == []


def test_plain_images_are_never_copies_of_each_other() -> None:
    looks = [seen(Image.new("L", (50, 50), level)) for level in (0, 0, 90, 255)]
    assert near_pairs(looks) == []


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_images_have_no_pair(count: int) -> None:
    assert near_pairs([seen(scene(0))] * count) == []


def test_many_copies_of_one_image_are_all_tied_together() -> None:
    """Each looks for NEAREST later ones only, but the chain holds all of them."""
    image = scene(3)
    looks = [seen(jpeg(image, quality)) for quality in range(40, 40 + 3 * NEAREST)]
    tied = {0}
    for i, j, _ in near_pairs(looks):
        if i in tied:
            tied.add(j)
    assert tied == set(range(3 * NEAREST))


def test_hashes_are_found_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qvft.data.quality.near._BLOCK", 2)
    looks = [seen(scene(seed)) for seed in (0, 1, 2, 3, 0, 4, 2)]
    assert [(i, j) for i, j, _ in near_pairs(looks)] == [(0, 4), (2, 6)]


def test_the_hash_of_a_ramp_is_known() -> None:
    """A cosine of one frequency: its own bit alone stands above the median, which is zero."""
    wave = np.cos(np.pi * 3 * (2 * np.arange(SIDE_PX) + 1) / (2 * SIDE_PX))
    across = np.broadcast_to(wave, (SIDE_PX, SIDE_PX))
    spectrum_bit = 3  # row 0, column 3 of the 8 x 8 lowest frequencies
    assert int(perceptual_hash(100 * across)) >> spectrum_bit & 1


def test_an_image_differs_from_itself_moved_by_a_pixel_by_less_than_one() -> None:
    """The alignment takes the movement back; without it the difference is 1 by definition."""
    smooth = (
        scene(1).convert("L").filter(ImageFilter.GaussianBlur(8)).resize((SIDE_PX + 1, SIDE_PX))
    )
    pixels = np.asarray(smooth)[None]
    (found,) = differences(pixels[:, :, :-1], pixels[:, :, 1:])
    assert found < MOST_DIFFERENCE


def test_no_two_images_of_vqa_rad_are_called_copies(shared_data: Path) -> None:
    files = sorted((shared_data / "vqa_rad" / "VQA_RAD Image Folder").glob("*.jpg"))[:120]
    originals = []
    for file in files:
        image = Image.open(file)
        image.draft("L", (256, 256))
        originals.append(image.convert("RGB"))
    looks = [seen(image) for image in originals]
    assert near_pairs(looks) == []
    copies = [seen(jpeg(cropped(image, 0.02), 75)) for image in originals[::8]]
    found = {(i, j) for i, j, _ in near_pairs(looks + copies)}
    assert found == {(8 * place, len(looks) + place) for place in range(len(copies))}
