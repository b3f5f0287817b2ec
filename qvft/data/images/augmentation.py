"""Image augmentation: random crop, horizontal mirror, brightness, contrast.

A view is a deterministic function of the decoded pixels, its number and the settings, both when the
feature cache is filled and when training runs the ViT.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from PIL import ImageEnhance, ImageOps
from PIL.Image import Image

MAKING = 1
"""Version, increased when the same settings give other pixels. A test pins the output."""


@dataclass(frozen=True)
class Augmentation:
    """Makes augmented views of an image.

    Attributes:
        crop: minimum share of the area in a random crop, which keeps the aspect ratio. The image
            processor resizes it.
        brightness, contrast: largest relative change of each.
        mirror: horizontal flip in half of the views.
        seed: random seed.
    """

    crop: float = 1.0
    brightness: float = 0.0
    contrast: float = 0.0
    mirror: bool = False
    seed: int = 0

    @property
    def identity(self) -> Mapping[str, Any]:
        """Everything that determines views besides the image and their number."""
        return {"making": MAKING, **dataclasses.asdict(self)}

    def __call__(self, image: Image, view: int) -> Image:
        """View number `view` of an upright RGB image; 0 is the unaugmented image."""
        assert view >= 0, "views are counted from 0"
        if view == 0:
            return image
        draw = self._draws(image, view)
        # All are drawn, so that one setting does not affect the others.
        share, across, down = draw.uniform(self.crop, 1), draw.random(), draw.random()
        light = 1 + self.brightness * draw.uniform(-1, 1)
        contrast = 1 + self.contrast * draw.uniform(-1, 1)
        exchanged = draw.random() < 0.5
        seen = image.crop(_box(image, share, across, down))
        if self.brightness:
            seen = ImageEnhance.Brightness(seen).enhance(light)
        if self.contrast:
            seen = ImageEnhance.Contrast(seen).enhance(contrast)
        return ImageOps.mirror(seen) if self.mirror and exchanged else seen

    def _draws(self, image: Image, view: int) -> Random:
        """Random numbers of a view, seeded by the image's pixels, as the cache key is."""
        digest = hashlib.sha256(f"{self.seed} {view} {image.width}x{image.height} ".encode())
        digest.update(image.tobytes())
        return Random(int.from_bytes(digest.digest(), "big"))


def _box(image: Image, share: float, across: float, down: float) -> tuple[int, int, int, int]:
    """Crop box with a share of the area, at a position from 0 to 1 across and down."""
    side = math.sqrt(share)
    width = max(1, round(image.width * side))
    height = max(1, round(image.height * side))
    left = round((image.width - width) * across)
    top = round((image.height - height) * down)
    return left, top, left + width, top + height
