"""Freezes and unfreezes components; counts trainable and frozen parameters, and shows them as a
table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from rich.table import Table
from torch import nn

from qvft.models.families import Family
from qvft.models.quantize import element_count


@dataclass(frozen=True)
class ComponentCount:
    """Parameters of one component: all and trained; `title` is its name in tables."""

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
    """Sets `requires_grad` per component and casts trained weights to float32.

    Args:
        modes: component to `full`, `frozen` or `lora`.
        frozen_share: frozen share of a fully trained decoder, see `trained_in_decoder`.

    Frozen parts keep their dtype. In bfloat16, trained weights would lose small updates to
    rounding.
    """
    in_decoder = trained_in_decoder(model, family, frozen_share) if frozen_share else None
    for name, parameter in model.named_parameters():
        component = family.component(name)
        wanted = "lora" if component == "adapters" else "full"
        trained = modes[family.part(name)] == wanted
        if component == "decoder" and trained and in_decoder is not None:
            trained = name in in_decoder
        if trained and not parameter.is_floating_point():
            raise AssertionError(f"{name} is quantised and cannot be trained")
        parameter.requires_grad_(trained)
        if trained and parameter.dtype != torch.float32:
            parameter.data = parameter.data.float()


BEFORE_BLOCKS = {"wpe", "embed_positions", "project_in"}
"""Modules before the first block: position embeddings, OPT-350m's input projection."""


def trained_in_decoder(model: nn.Module, family: Family, frozen_share: float) -> set[str]:
    """Names of the trained decoder weights if its lower blocks are frozen.

    Frozen are the lowest `int(frozen_share * blocks)` blocks and everything before the blocks,
    except the token embeddings, which are tied to the head.

    Source: the published QVision, whose shares of 0.7 and 0.4 freeze 16 and 9 of 24 blocks.
    """
    prefix = family.blocks(cast(Any, model).config)[-1] + "."
    frozen_blocks = int(frozen_share * count_blocks(model, family)[0])

    def trained(name: str) -> bool:
        if name.startswith(prefix):
            return int(name.removeprefix(prefix).partition(".")[0]) >= frozen_blocks
        return BEFORE_BLOCKS.isdisjoint(name.split("."))

    names = [name for name, _ in model.named_parameters() if family.component(name) == "decoder"]
    return {name for name in names if trained(name)}


def count_blocks(model: nn.Module, family: Family) -> tuple[int, int]:
    """Number of decoder blocks, and of those with trained weights of their own.

    LoRA in a block does not count; the block itself is frozen.
    """
    blocks = tuple(f"{prefix}." for prefix in family.blocks(cast(Any, model).config))
    trained: dict[str, bool] = {}  # by prefix of the block
    for name, parameter in model.named_parameters():
        prefix = next((prefix for prefix in blocks if name.startswith(prefix)), None)
        if prefix is not None:
            block = prefix + name.removeprefix(prefix).partition(".")[0]
            own = parameter.requires_grad and family.component(name) == "decoder"
            trained[block] = trained.get(block, False) or own
    return len(trained), sum(trained.values())


def count_components(model: nn.Module, family: Family) -> list[ComponentCount]:
    """One row per component in the family's order, then adapters, if any."""
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
    """Sum of the rows."""
    return ComponentCount("total", sum(r.total for r in rows), sum(r.trainable for r in rows))


def component_table(counts: Sequence[ComponentCount], *, title: str) -> Table:
    """Table of all and trained parameters and percentages, with the sum below."""
    table = Table(title=title, title_justify="left")
    table.add_column("component")
    for column in ("total", "trainable", "%"):
        table.add_column(column, justify="right")
    for row in counts:
        table.add_row(*_cells(row))
    table.add_section()
    table.add_row(*_cells(total_count(list(counts))))
    return table


def _cells(row: ComponentCount) -> list[str]:
    return [
        row.title or row.component,
        millions(row.total),
        millions(row.trainable),
        f"{row.percent:.2f}",
    ]


def millions(count: int) -> str:
    """A parameter count as text: 2651.74 M, and plain below ten thousand."""
    return f"{count / 1e6:.2f} M" if count >= 10_000 else str(count)
