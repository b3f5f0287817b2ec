"""The recipe's `preference` section: loss types of DPO, as trl's `DPOConfig` has them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from qvft.recipe.section import Section

LossType = Literal[
    "sigmoid", "hinge", "ipo", "robust", "exo_pair", "nca_pair", "bco_pair", "sppo_hard",
    "apo_zero", "apo_down", "discopop", "sigmoid_norm", "sft",
]  # fmt: skip
LOSS_TYPES: tuple[str, ...] = get_args(LossType)
OF_DIFFERENCES = frozenset(
    {"sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft"}
)
"""Losses of the difference of two scores, in which an f-divergence's constant cancels.

Source: trl 1.16, `DPOTrainer.__init__`.
"""


def _sigmoid() -> list[LossType]:
    return ["sigmoid"]


def _or_one_name(schema: dict[str, Any]) -> None:
    """Tells editors that the list may be one name."""
    names = {"items": schema.pop("items"), "minItems": schema.pop("minItems"), "type": "array"}
    schema.pop("type")
    schema["anyOf"] = [names, {"enum": list(LOSS_TYPES), "type": "string"}]


class Preference(Section):
    loss_type: list[LossType] = Field(
        default_factory=_sigmoid,
        min_length=1,
        description="Losses of a pair, one name or several. sigmoid is DPO; sft is the language "
        "loss of the chosen text, per token.",
        json_schema_extra=_or_one_name,
    )
    loss_weights: list[Annotated[float, Field(ge=0, le=1_000_000)]] | None = Field(
        None, description="Weight of each of `loss_type`; null: 1 each."
    )
    beta: float = Field(
        0.1,
        gt=0,
        le=1_000_000,
        description="How strongly the model is held to the weights that the phase began with: the "
        "reward of a text is beta times its log-probability's difference. In ipo it is tau.",
    )
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="robust: probability that a pair is the wrong way round, below 0.5. exo_pair: "
        "its epsilon, above 0 (the paper: 1e-3).",
    )
    discopop_tau: float = Field(0.05, gt=0, le=1_000_000, description="Temperature of discopop.")
    ld_alpha: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Weight of the tokens of the longer text beyond the length of the shorter one "
        "(LD-DPO, arXiv 2409.06411), against a length bias; null: 1.",
    )
    f_divergence_type: Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"] = (
        Field(
            "reverse_kl",
            description="Divergence from the weights that the phase began with (arXiv 2309.16240).",
        )
    )
    f_alpha_divergence_coef: float = Field(
        0.5, ge=0, le=1_000_000, description="Alpha of alpha_divergence."
    )

    @field_validator("loss_type", mode="before")
    @classmethod
    def _one_name_is_a_list(cls, given: Any) -> Any:
        return [given] if isinstance(given, str) else given

    @model_validator(mode="after")
    def _losses_fit(self) -> Preference:
        names, smoothing = self.loss_type, self.label_smoothing
        if len(set(names)) < len(names):
            raise ValueError(f"loss_type names a loss twice: {', '.join(names)}")
        if self.loss_weights is not None:
            if len(self.loss_weights) != len(names):
                raise ValueError(
                    f"{len(self.loss_weights)} loss_weights for {len(names)} of loss_type"
                )
            if not any(self.loss_weights):
                raise ValueError("one of loss_weights at least must be above 0")
        if "robust" in names and smoothing >= 0.5:
            raise ValueError(f"label_smoothing is {smoothing:g}; robust needs one below 0.5")
        if "exo_pair" in names and smoothing == 0:
            raise ValueError("label_smoothing is 0; exo_pair needs one above 0, such as 1e-3")
        if names == ["sft"]:
            raise ValueError(
                "sft alone learns nothing from the rejected texts; add another loss_type, or train "
                "the chosen texts in a phase with objective: language"
            )
        others = [name for name in names if name not in OF_DIFFERENCES]
        if self.f_divergence_type != "reverse_kl" and others:
            raise ValueError(
                f"f_divergence_type {self.f_divergence_type} has no form of {others[0]}; expected "
                f"reverse_kl, or of loss_type {', '.join(sorted(OF_DIFFERENCES))}"
            )
        return self

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each loss of `loss_type`, those of weight 0 left out."""
        weights = self.loss_weights or [1.0] * len(self.loss_type)
        return {name: one for name, one in zip(self.loss_type, weights, strict=True) if one > 0}
