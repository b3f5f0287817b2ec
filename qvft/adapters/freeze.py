"""What is trained and what is not, in flags and in counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from qvft.models.families import Family
from qvft.models.quantize import element_count


@dataclass(frozen=True)
class ComponentCount:
    """Weights of one component: all and trained; `title` is what a table calls it."""

    component: str
    total: int
    trainable: int
    title: str = ""

    @property
    def percent(self) -> float:
        """Trained share in percent."""
        return 100 * self.trainable / self.total if self.total else 0.0


def mark_trainable(
    model: nn.Module, family: Family, modes: Mapping[str, str], *, frozen_share: float = 0.0
) -> None:
    """Sets `requires_grad` of every weight by its component and makes trained weights float32.

    Args:
        model: the model, with LoRA layers already in place where there are any.
        modes: component to `full`, `frozen` or (decoder) `lora`.
        frozen_share: of a decoder that is trained in full, see `opened_decoder`.

    Frozen parts stay in their type; a bfloat16 Q-Former would lose small updates to rounding.
    """
    opened = opened_decoder(model, family, frozen_share) if frozen_share else None
    for name, parameter in model.named_parameters():
        component = family.component(name)
        lora = component == "adapters"
        trained = modes["decoder"] == "lora" if lora else modes[component] == "full"
        if component == "decoder" and trained and opened is not None:
            trained = name in opened
        if trained and not parameter.is_floating_point():
            raise AssertionError(f"{name} is quantised and cannot be trained")
        parameter.requires_grad_(trained)
        if trained and parameter.dtype != torch.float32:
            parameter.data = parameter.data.float()


def opened_decoder(model: nn.Module, family: Family, frozen_share: float) -> set[str]:
    """Names of the decoder's weights that are trained when its lower part is frozen.

    Counted are the decoder's weights from the bottom, embeddings and then blocks, as far as
    `frozen_share` of all of them; a block that does not fit in whole is trained, with those above
    it. The token embeddings, which the head shares, are trained too; position embeddings and the
    last norm are not.

    Source: the rule under which the published QVision phases come to 15 of 24 blocks at 50 %.
    """
    prefix = family.blocks(cast(Any, model).config)
    blocks: dict[int, dict[str, int]] = {}
    below, total = 0, 0
    for name, parameter in model.named_parameters():
        if family.component(name) != "decoder":
            continue
        size = element_count(parameter)
        total += size
        if name.startswith(prefix + "."):
            number = int(name.removeprefix(prefix + ".").partition(".")[0])
            blocks.setdefault(number, {})[name] = size
        elif parameter.dim() > 1:
            below += size
    words = cast(Any, model).get_input_embeddings().weight
    opened = {name for name, parameter in model.named_parameters() if parameter is words}
    for number in sorted(blocks):
        below += sum(blocks[number].values())
        if below > frozen_share * total:
            opened |= set(blocks[number])
    return opened


def count_blocks(model: nn.Module, family: Family) -> tuple[int, int]:
    """Blocks of the decoder: all, and those with weights of their own that are trained.

    LoRA in a block does not count; the block itself is frozen then.
    """
    prefix = family.blocks(cast(Any, model).config) + "."
    blocks: set[str] = set()
    trained: set[str] = set()
    for name, parameter in model.named_parameters():
        if name.startswith(prefix):
            number = name.removeprefix(prefix).partition(".")[0]
            blocks.add(number)
            if parameter.requires_grad and family.component(name) == "decoder":
                trained.add(number)
    return len(blocks), len(trained)


def count_components(model: nn.Module, family: Family) -> list[ComponentCount]:
    """One row a component in the family's order, then adapters where there are any."""
    totals = dict.fromkeys([*family.parts, "adapters"], 0)
    trained = dict(totals)
    for name, parameter in model.named_parameters():
        component = family.component(name)
        size = element_count(parameter)
        totals[component] += size
        trained[component] += size if parameter.requires_grad else 0
    return [
        ComponentCount(
            component,
            totals[component],
            trained[component],
            family.title(component, cast(Any, model).config),
        )
        for component in totals
        if totals[component]
    ]


def total_count(rows: list[ComponentCount]) -> ComponentCount:
    """The sum of the rows."""
    return ComponentCount("total", sum(r.total for r in rows), sum(r.trainable for r in rows))
