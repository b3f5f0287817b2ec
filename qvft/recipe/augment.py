"""What a recipe may say of augmented views."""

from __future__ import annotations

from pydantic import Field

from qvft.recipe.section import MOST_SEED, Section


class Augment(Section):
    """What is done to an image in its augmented views; `data.views` says how many there are."""

    crop: float = Field(
        0.85,
        ge=0.01,
        le=1,
        description="A view is a random part of the image, of its own shape, that has this share "
        "of its area at least; 1: all of it. Wrong where things at the border count.",
    )
    brightness: float = Field(
        0.1, ge=0, lt=1, description="Brighter or darker by a factor of 1 - this to 1 + this."
    )
    contrast: float = Field(
        0.1, ge=0, lt=1, description="Contrast changed by a factor of 1 - this to 1 + this."
    )
    mirror: bool = Field(
        False,
        description="Half of the views have left and right exchanged. Wrong wherever a text says "
        "left or right.",
    )
    seed: int = Field(
        0,
        ge=0,
        le=MOST_SEED,
        description="Seed of the views; runs of any run.seed share them in the cache.",
    )

    @property
    def changes(self) -> bool:
        """Whether a view differs from the image at all."""
        return self.crop < 1 or self.brightness > 0 or self.contrast > 0 or self.mirror
