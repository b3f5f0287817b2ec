"""What is trained and what is not, in flags and in counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from qvft.models.families import COMPONENTS, Family
from qvft.models.quantize import element_count


@dataclass(frozen=True)
class ComponentCount:
    """Weights of one component: all and trained."""

    component: str
    total: int
    trainable: int

    @property
    def percent(self) -> float:
        """Trained share in percent."""
        return 100 * self.trainable / self.total if self.total else 0.0


def mark_trainable(model: nn.Module, family: Family, modes: Mapping[str, str]) -> None:
    """Sets `requires_grad` of every weight by its component and makes trained weights float32.

    Args:
        model: the model, with LoRA layers already in place where there are any.
        modes: component to `full`, `frozen` or (decoder) `lora`.

    Frozen parts stay in their type; a bfloat16 Q-Former would lose small updates to rounding.
    """
    for name, parameter in model.named_parameters():
        component = family.component(name)
        lora = component == "adapters"
        trained = modes["decoder"] == "lora" if lora else modes[component] == "full"
        if trained and not parameter.is_floating_point():
            raise AssertionError(f"{name} is quantised and cannot be trained")
        parameter.requires_grad_(trained)
        if trained and parameter.dtype != torch.float32:
            parameter.data = parameter.data.float()


def count_components(model: nn.Module, family: Family) -> list[ComponentCount]:
    """One row a component in the family's order, then adapters where there are any."""
    totals = dict.fromkeys([*COMPONENTS, "adapters"], 0)
    trained = dict(totals)
    for name, parameter in model.named_parameters():
        component = family.component(name)
        size = element_count(parameter)
        totals[component] += size
        trained[component] += size if parameter.requires_grad else 0
    return [
        ComponentCount(component, totals[component], trained[component])
        for component in totals
        if totals[component]
    ]


def total_count(rows: list[ComponentCount]) -> ComponentCount:
    """The sum of the rows."""
    return ComponentCount("total", sum(r.total for r in rows), sum(r.trainable for r in rows))
