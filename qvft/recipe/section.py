"""What every part of a recipe is."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from qvft.files import expanded

PathText = Annotated[str, AfterValidator(expanded)]
"""A path, or what may be one: `~` is the home folder."""


class Section(BaseModel):
    """A frozen, strictly typed part of a recipe; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")
