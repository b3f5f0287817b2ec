"""Base class of all recipe sections."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from qvft.files import expanded


class Section(BaseModel):
    """A frozen, strictly typed part of a recipe; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


Text = Annotated[str, Field(min_length=1)]
"""A text that says something: `null` leaves a key out, an empty text is a slip."""
PathText = Annotated[Text, AfterValidator(expanded)]
"""A path, or what may be one: `~` is the home folder."""
MOST_STEPS = 2**31 - 1
"""Of whatever is counted in steps or texts: more than any run has, and a number that fits."""
MOST_SEED = 2**32 - 1
"""Source: numpy.random.seed, which transformers' set_seed calls."""
