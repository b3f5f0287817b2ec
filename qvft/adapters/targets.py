"""Resolves LoRA `target_modules` of a recipe to exact module names."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from torch import nn
from transformers.pytorch_utils import Conv1D

from qvft.errors import RecipeError
from qvft.models.families import Family


def linear_names(model: nn.Module, family: Family) -> list[str]:
    """Last name parts of the linear layers in the decoder's blocks, e.g. q_proj, fc1.

    GPT-2's are transformers' `Conv1D`, a linear layer whose weight is stored (in, out).
    """
    names = {name.rpartition(".")[2] for name, _ in _decoder_linears(model, family)}
    return sorted(names)


def resolve_targets(model: nn.Module, family: Family, targets: Sequence[str]) -> list[str]:
    """Full names of the decoder's linear layers whose last part is in `targets`.

    Only the decoder's blocks are searched: PEFT's defaults for this model match too few or too
    many, and do not report a target without match.

    Raises:
        RecipeError: a target matches no layer.
    """
    found = [name for name, _ in _decoder_linears(model, family)]
    known = linear_names(model, family)
    if not known:
        raise RecipeError(
            "lora, but the decoder has no linear layers that it reaches",
            where="trainable.decoder",
            expected="full or frozen for this decoder",
        )
    for target in targets:
        if target not in known:
            near = difflib.get_close_matches(target, known, n=1)
            raise RecipeError(
                f'"{target}" is not a linear layer of the decoder',
                where="trainable.lora.target_modules",
                expected="one of " + ", ".join(known),
                do=f'did you mean "{near[0]}"?' if near else None,
            )
    return [name for name in found if name.rpartition(".")[2] in targets]


def stored_transposed(model: nn.Module, targets: Sequence[str]) -> bool:
    """Whether the base stores the weights of these layers (in, out), as `Conv1D` does.

    A 4-bit layer always stores them (out, in); its original layer counts, since the adapter is
    merged into that.

    Args:
        targets: full module names, from `resolve_targets`.

    Raises:
        RecipeError: the layouts are mixed; an adapter has one such setting.
    """
    turned = [name for name in targets if _is_conv1d(model.get_submodule(name))]
    if 0 < len(turned) < len(targets):
        raise RecipeError(
            f"{len(turned)} of {len(targets)} weights stored (in, out), first that of {turned[0]}",
            where="trainable.lora.target_modules",
            expected="layers of one kind",
        )
    return bool(turned)


def _is_conv1d(layer: nn.Module) -> bool:
    return isinstance(layer, Conv1D) or getattr(layer, "source_cls", None) is Conv1D


def _decoder_linears(model: nn.Module, family: Family) -> list[tuple[str, nn.Module]]:
    prefixes = tuple(f"{prefix}." for prefix in family.blocks(model.config))
    return [
        (name, module)
        for name, module in model.named_modules()
        if name.startswith(prefixes) and isinstance(module, nn.Linear | Conv1D)
    ]
