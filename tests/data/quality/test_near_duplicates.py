"""Copies of images are found, other images are not; figures are in docs/data_quality.md."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from qvft import cpu_threads
from qvft.data.quality import near_duplicates as near
from qvft.data.quality.image_difference import (
    COARSE_STEPS,
    blurred,
    grey_differences,
    image_difference,
)
from qvft.data.quality.near_duplicates import (
    MOST_DIFFERENCE,
    NEAREST,
    SIDE_PX,
    ImageSignature,
    perceptual_hash,
    sign,
)


class Drawn:
    name = "drawn"

    def open(self) -> Image.Image:
        raise NotImplementedError


def scene(seed: int, *, colour: tuple[int, int, int] = (255, 255, 255)) -> Image.Image:
    """A smooth random picture of one colour's shades, with detail down to a 16th of its size."""
    noise = np.random.default_rng(seed).integers(0, 256, (16, 16), dtype=np.uint8)
    grey = np.asarray(Image.fromarray(noise).resize((320, 240), Image.Resampling.BICUBIC)) / 255
    return Image.fromarray((grey[..., None] * np.array(colour)).astype(np.uint8))


def seen(image: Image.Image) -> tuple[ImageSignature, Image.Image]:
    image = image.convert("RGB")
    return sign(Drawn(), image), image


def near_pairs(
    images: Sequence[tuple[ImageSignature, Image.Image]],
) -> list[tuple[int, int, float]]:
    looks, decoded = [one for one, _ in images], [image for _, image in images]
    return near.near_pairs(looks, decoded.__getitem__)


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


def invoice(seed: int) -> Image.Image:
    """A page of one template; only its numbers are its own."""
    numbers = np.random.default_rng(seed)
    page = Image.new("RGB", (600, 800), "white")
    draw = ImageDraw.Draw(page)
    draw.rectangle((20, 20, 580, 90), outline="black", width=3)
    draw.text((200, 40), "INVOICE", fill="black", font_size=28)
    for line in range(14):
        text = f"Item {numbers.integers(1000, 9999)}   {numbers.integers(1, 9999)}.00 EUR"
        draw.text((40, 130 + 45 * line), text, fill="black", font_size=24)
    return page


def slices(depth: int) -> Image.Image:
    """A cut through soft bodies, at one of several depths."""
    image = Image.new("L", (256, 256), 0)
    draw = ImageDraw.Draw(image)
    draw.ellipse((30 - depth, 50 - depth, 226 + depth, 206 + depth), fill=90)
    draw.ellipse((60 + 2 * depth, 80, 110 + depth, 150 - depth), fill=160)
    return image.filter(ImageFilter.GaussianBlur(1.5))


def dot(x: int, y: int, colour: tuple[int, int, int] = (40, 60, 90)) -> Image.Image:
    image = Image.new("RGB", (64, 64), (240, 200, 80))
    ImageDraw.Draw(image).ellipse((x - 8, y - 8, x + 8, y + 8), fill=colour)
    return image


@pytest.mark.parametrize(
    "images",
    [
        [invoice(seed) for seed in range(8)],
        [slices(depth) for depth in range(0, 12, 2)],
        [dot(30, 30), dot(33, 30), dot(30, 33), dot(30, 30, (90, 40, 30))],
    ],
    ids=["invoices", "slices", "dots"],
)
def test_images_of_one_template_are_no_copies(images: list[Image.Image]) -> None:
    assert near_pairs([seen(image) for image in images]) == []


# A cropped page is not found: fine print does not correlate before the crop is found.
@pytest.mark.parametrize("change", [name for name in CHANGES if "off" not in name])
def test_a_changed_copy_of_a_page_is_found_among_its_template(change: str) -> None:
    pages = [invoice(seed) for seed in range(4)]
    looks = [seen(CHANGES[change](pages[1]))] + [seen(page) for page in pages]
    assert [(i, j) for i, j, _ in near_pairs(looks)] == [(0, 2)]


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
    monkeypatch.setattr("qvft.data.quality.near_duplicates._BLOCK", 2)
    looks = [seen(scene(seed)) for seed in (0, 1, 2, 3, 0, 4, 2)]
    assert [(i, j) for i, j, _ in near_pairs(looks)] == [(0, 4), (2, 6)]


def test_many_similar_pairs_are_compared_no_further_than_the_most_similar_ones(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("qvft.data.quality.near_duplicates.MOST_PAIRS", 2)
    image = scene(3)
    looks = [seen(one) for one in (image, jpeg(image, 30), image, cropped(image, 0.03))]
    assert {(i, j) for i, j, _ in near_pairs(looks)} == {(0, 1), (0, 2)}
    assert "6 pairs of images with similar thumbnails" in caplog.text


@pytest.mark.parametrize("change", CHANGES)
def test_differences_of_many_pairs_at_once_are_those_of_each(change: str) -> None:
    """Within 0.1: crops of single pairs are rounded to whole grey levels, here they are not."""
    images = [scene(seed).resize((SIDE_PX, SIDE_PX)) for seed in range(4)]
    changed = [CHANGES[change](scene(seed)).resize((SIDE_PX, SIDE_PX)) for seed in (0, 1, 2, 5)]
    pairs = list(zip(images, [one.convert("RGB") for one in changed], strict=True))
    greys = [
        np.stack([np.asarray(blurred(pair[side]).convert("L")) for pair in pairs])
        for side in (0, 1)
    ]
    for steps in (COARSE_STEPS, ()):
        each = [image_difference(*pair, steps=steps) for pair in pairs]
        assert grey_differences(*greys, steps=steps) == pytest.approx(each, abs=0.1)


def test_the_hash_of_a_ramp_is_known() -> None:
    """A cosine of one frequency: its own bit alone stands above the median, which is zero."""
    wave = np.cos(np.pi * 3 * (2 * np.arange(SIDE_PX) + 1) / (2 * SIDE_PX))
    across = np.broadcast_to(wave, (SIDE_PX, SIDE_PX))
    spectrum_bit = 3  # row 0, column 3 of the 8 x 8 lowest frequencies
    assert int(perceptual_hash(100 * across)) >> spectrum_bit & 1


def test_pairs_are_the_same_in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 20  # `in_threads` starts threads after 16
    originals = [scene(seed) for seed in range(count)]
    looks = [seen(image) for image in originals]
    looks += [seen(CHANGES["half"](image)) for image in originals]
    found = []
    for short in (float("inf"), 0.0):
        monkeypatch.setattr(cpu_threads, "SHORT", short)
        found.append(near_pairs(looks))
    assert found[0] == found[1]
    assert [(i, j) for i, j, _ in found[0]] == [(i, count + i) for i in range(count)]


def test_a_part_moved_by_a_pixel_is_a_copy_and_one_moved_by_four_is_not() -> None:
    """1 is by definition what one pixel of movement makes; the crop takes only some of it back."""
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9), dtype=np.uint8)
    large = Image.fromarray(pixels).resize((140, 140), Image.Resampling.BICUBIC).convert("RGB")
    dots = [large.copy() for _ in range(3)]
    for image, left in zip(dots, (60, 61, 64), strict=True):
        ImageDraw.Draw(image).rectangle((left, 60, left + 20, 80), fill="white")
    assert image_difference(dots[0], dots[0]) == 0
    assert image_difference(dots[0], dots[1]) < 1.5  # one pixel, less what smoothing takes
    assert image_difference(dots[0], dots[2]) > MOST_DIFFERENCE


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
