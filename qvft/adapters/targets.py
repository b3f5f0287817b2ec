"""From LoRA target names in a recipe to the exact modules they mean."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from torch import nn

from qvft.errors import RecipeError
from qvft.models.families import Family


def linear_names(model: nn.Module, family: Family) -> list[str]:
    """Last name parts of the linear layers in the decoder's blocks, e.g. q_proj, fc1."""
    names = {name.rpartition(".")[2] for name, _ in _decoder_linears(model, family)}
    return sorted(names)


def resolve_targets(model: nn.Module, family: Family, targets: Sequence[str]) -> list[str]:
    """Full names of the decoder's linear layers whose last part is in `targets`.

    Only the decoder's blocks are searched: PEFT's own defaults for this model miss or exceed them,
    and a target that matches nothing would go unnoticed.

    Raises:
        RecipeError: a target matches no layer.
    """
    found = [name for name, _ in _decoder_linears(model, family)]
    known = linear_names(model, family)
    if not known:
        raise RecipeError(
            "lora, but the decoder has no linear layers that it reaches",
            where="tune.decoder",
            expected="full or frozen for this decoder",
        )
    for target in targets:
        if target not in known:
            near = difflib.get_close_matches(target, known, n=1)
            raise RecipeError(
                f'"{target}" is no linear layer of the decoder',
                where="tune.lora.targets",
                expected="one of " + ", ".join(known),
                do=f'did you mean "{near[0]}"?' if near else None,
            )
    return [name for name in found if name.rpartition(".")[2] in targets]


def _decoder_linears(model: nn.Module, family: Family) -> list[tuple[str, nn.Module]]:
    prefix = family.blocks(model.config) + "."
    return [
        (name, module)
        for name, module in model.named_modules()
        if name.startswith(prefix) and isinstance(module, nn.Linear)
    ]
