"""The recipe's `objectives` section: weights of the training losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator

from qvft.recipe.section import PathText, Section, Text

Weight = Annotated[float, Field(ge=0, le=1_000_000)]


class Objectives(Section):
    model_config = ConfigDict(
        json_schema_extra={"patternProperties": {"[.:]": {"type": "number", "minimum": 0}}}
    )

    lm: Weight = Field(1.0, description="Weight of the language modeling loss on target tokens.")
    itc: Weight = Field(
        0.0, description="Weight of image-text contrastive loss; needs captions and family blip2."
    )
    itm: Weight = Field(0.0, description="Weight of image-text matching loss; as itc.")
    itg: Weight = Field(
        0.0, description="Weight of image-grounded text generation loss (Q-Former); as itc."
    )
    text_branch: PathText | None = Field(
        None,
        description="Initial weights of the Q-Former's text branch for itc, itm and itg: a BLIP-2 "
        "retrieval checkpoint (Salesforce/blip2-itm-vit-g); null: random weights.",
    )

    custom: dict[Text, Weight] = Field(
        default_factory=dict,
        description="Weights of objectives of your own, package.module.name: weight, of family "
        "blip2; such names can also be given next to itc. See docs/extending.md.",
    )

    @property
    def further(self) -> dict[str, float]:
        """The custom objectives with a positive weight."""
        return {name: weight for name, weight in self.custom.items() if weight > 0}

    @property
    def alignment(self) -> dict[str, float]:
        """The positive weights of the alignment objectives."""
        weights = {"itc": self.itc, "itm": self.itm, "itg": self.itg}
        return {name: weight for name, weight in weights.items() if weight > 0}

    @model_validator(mode="before")
    @classmethod
    def _dotted_names_are_custom(cls, content: Any) -> Any:
        if not isinstance(content, Mapping):
            return content
        dotted = {key: content[key] for key in content if {".", ":"} & set(str(key))}
        if not dotted or not isinstance(content.get("custom", {}), Mapping):
            return content
        plain = {key: value for key, value in content.items() if key not in dotted}
        return {**plain, "custom": {**content.get("custom", {}), **dotted}}

    @model_validator(mode="after")
    def _something_is_trained(self) -> Objectives:
        if not (self.lm > 0 or self.alignment or self.further):
            raise ValueError("one weight at least must be above 0")
        if self.text_branch is not None and not self.alignment:
            raise ValueError("text_branch needs itc, itm or itg above 0")
        return self
