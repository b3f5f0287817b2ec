"""What every part of a recipe is."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen, strictly typed part of a recipe; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")
