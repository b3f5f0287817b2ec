"""The recipe's `data.augment` section: random crop, brightness, contrast, mirror."""

from __future__ import annotations

from pydantic import Field

from qvft.recipe.section import MOST_SEED, Section


class Augment(Section):
    """Augmentations of an image; `data.augmentations_per_image` is the number of views."""

    crop: float = Field(
        0.85,
        ge=0.01,
        le=1,
        description="Random crop: minimum share of the image's area, at its aspect ratio; 1: no "
        "crop. Wrong where details at the border matter.",
    )
    brightness: float = Field(
        0.1, ge=0, lt=1, description="Brightness factor drawn from 1 - this to 1 + this."
    )
    contrast: float = Field(
        0.1, ge=0, lt=1, description="Contrast factor drawn from 1 - this to 1 + this."
    )
    mirror: bool = Field(
        False,
        description="Horizontal flip of half of the views. Wrong where texts say left or right.",
    )
    seed: int = Field(
        0,
        ge=0,
        le=MOST_SEED,
        description="Seed of the views, independent of run.seed, so that runs share cached views.",
    )

    @property
    def changes(self) -> bool:
        """Whether a view differs from the image at all."""
        return self.crop < 1 or self.brightness > 0 or self.contrast > 0 or self.mirror
