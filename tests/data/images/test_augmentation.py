"""Augmented views: functions of pixels, number and settings, mild, and each setting by itself."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from PIL import Image

from qvft.data.images.augmentation import Augmentation

MILD = Augmentation(crop=0.8, brightness=0.1, contrast=0.1)


def ramp(width: int = 60, height: int = 40) -> Image.Image:
    """Red grows from left to right, green from top to bottom: a pixel tells where it was."""
    across = np.linspace(40, 200, width).round()[None, :].repeat(height, axis=0)
    down = np.linspace(40, 200, height).round()[:, None].repeat(width, axis=1)
    pixels = np.stack([across, down, np.full((height, width), 120)], axis=2)
    return Image.fromarray(pixels.astype(np.uint8))


def views(augmentation: Augmentation, count: int = 40) -> list[np.ndarray]:
    return [np.asarray(augmentation(ramp(), view)).astype(int) for view in range(1, count + 1)]


def test_view_0_is_the_image_as_it_is() -> None:
    image = ramp()
    assert MILD(image, 0) is image


def test_a_view_depends_on_pixels_number_and_seed_alone() -> None:
    first = MILD(ramp(), 3).tobytes()
    assert Augmentation(crop=0.8, brightness=0.1, contrast=0.1)(ramp(), 3).tobytes() == first
    others = [
        MILD(ramp(), 4),
        MILD(Image.eval(ramp(), lambda value: value + 1), 3),
        Augmentation(crop=0.8, brightness=0.1, contrast=0.1, seed=1)(ramp(), 3),
    ]
    assert all(other.tobytes() != first for other in others)


def test_the_image_itself_is_left_alone() -> None:
    image = ramp()
    before = image.tobytes()
    Augmentation(crop=0.5, brightness=0.3, contrast=0.3, mirror=True)(image, 1)
    assert image.tobytes() == before


def test_a_crop_is_a_part_of_the_images_own_shape_and_of_the_least_area() -> None:
    found = views(Augmentation(crop=0.8))
    whole = np.asarray(ramp()).astype(int)
    for view in found:
        height, width = view.shape[:2]
        # Sides are rounded to pixels: half a pixel of 60 and of 40.
        assert 0.8 * 0.97 <= height * width / 2400 <= 1
        assert abs(width / 60 - height / 40) <= 0.5 / 60 + 0.5 / 40
        inside = [
            (top, left)
            for top in range(41 - height)
            for left in range(61 - width)
            if (whole[top : top + height, left : left + width] == view).all()
        ]
        assert len(inside) >= 1
    assert len({view.shape for view in found}) > 3
    assert len({tuple(view[0, 0]) for view in found}) > 10  # at different places


def test_brightness_and_contrast_keep_to_their_range() -> None:
    mean = float(np.asarray(ramp()).mean())
    brighter = [float(view.mean()) / mean for view in views(Augmentation(brightness=0.1))]
    # Pixels are rounded to whole numbers: half of one in 120.
    assert 0.9 - 0.005 <= min(brighter) < 0.93 and 1.07 < max(brighter) <= 1.1 + 0.005
    spread = float(np.asarray(ramp())[..., 0].std())
    stretched = [float(view[..., 0].std()) / spread for view in views(Augmentation(contrast=0.1))]
    assert 0.9 - 0.02 <= min(stretched) < 0.93 and 1.07 < max(stretched) <= 1.1 + 0.02


def test_left_and_right_are_exchanged_only_where_asked_and_in_half_of_the_views() -> None:
    def exchanged(found: list[np.ndarray]) -> int:
        return sum(bool(view[0, 0, 0] > view[0, -1, 0]) for view in found)

    assert exchanged(views(Augmentation(crop=0.5, brightness=0.2, contrast=0.2))) == 0
    # Of 40 fair draws, 8 to 32 are within four deviations.
    assert 8 <= exchanged(views(Augmentation(mirror=True))) <= 32


def test_a_setting_changes_nothing_about_the_others() -> None:
    plain, mirrored = views(Augmentation(crop=0.7)), views(Augmentation(crop=0.7, mirror=True))
    for one, other in zip(plain, mirrored, strict=True):
        assert (one == other).all() or (one == other[:, ::-1]).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3, 2)])
def test_tiny_images_have_views(size: tuple[int, int]) -> None:
    view = Augmentation(crop=0.1, brightness=0.5, contrast=0.5)(Image.new("RGB", size, "red"), 1)
    assert min(view.size) >= 1


def test_the_identity_names_every_setting() -> None:
    assert MILD.identity == {
        "making": 1, "crop": 0.8, "brightness": 0.1, "contrast": 0.1, "mirror": False, "seed": 0,
    }  # fmt: skip


def test_the_pixels_of_version_1() -> None:
    """Where these change, `MAKING` must be raised: cached views are found by it."""
    made = Augmentation(crop=0.6, brightness=0.2, contrast=0.2, mirror=True, seed=5)(ramp(), 2)
    assert made.size == (50, 33)
    assert hashlib.sha256(made.tobytes()).hexdigest()[:16] == "bdb1cd88d6dc4012"
