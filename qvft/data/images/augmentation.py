"""Image augmentation: random crop, horizontal mirror, brightness, contrast.

A view is a function of the decoded pixels, its number and the settings, whoever makes it: the pass
that fills the feature cache, or training that runs the ViT.
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
"""Raised when the same settings give other pixels than before. A test pins what they give."""


@dataclass(frozen=True)
class Augmentation:
    """Makes the views of an image.

    Attributes:
        crop: least share of the area that a view shows; the part has the image's own shape. The
            image processor brings it to the size of the whole.
        brightness, contrast: largest relative change of each.
        mirror: exchange left and right in half of the views.
        seed: of everything drawn.
    """

    crop: float = 1.0
    brightness: float = 0.0
    contrast: float = 0.0
    mirror: bool = False
    seed: int = 0

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that views depend on beside the image and their number."""
        return {"making": MAKING, **dataclasses.asdict(self)}

    def __call__(self, image: Image, view: int) -> Image:
        """View number `view` of an upright RGB image; 0 is the image as it is."""
        assert view >= 0, "views are counted from 0"
        if view == 0:
            return image
        draw = self._draws(image, view)
        # All are drawn, so that a setting changes nothing about the others.
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
        """Random numbers of a view: images of equal pixels have equal views, whatever they are
        called, as they have one place in the cache.
        """
        digest = hashlib.sha256(f"{self.seed} {view} {image.width}x{image.height} ".encode())
        digest.update(image.tobytes())
        return Random(int.from_bytes(digest.digest(), "big"))


def _box(image: Image, share: float, across: float, down: float) -> tuple[int, int, int, int]:
    """The part with a share of the area, at a place from 0 (left, top) to 1 (right, bottom)."""
    side = math.sqrt(share)
    width = max(1, round(image.width * side))
    height = max(1, round(image.height * side))
    left = round((image.width - width) * across)
    top = round((image.height - height) * down)
    return left, top, left + width, top + height
