"""Resolves LoRA settings of a recipe to exact module names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence

from torch import nn
from transformers.pytorch_utils import Conv1D

from qvft.errors import RecipeError
from qvft.models.families import Family

ALL_LINEAR = "all-linear"
"""`target_modules` for every linear layer of the decoder's blocks, as PEFT calls it."""


def linear_names(model: nn.Module, family: Family) -> list[str]:
    """Last name parts of the linear layers in the decoder's blocks, e.g. q_proj, fc1."""
    return sorted({name.rpartition(".")[2] for name in _decoder_linears(model, family)})


def resolve_targets(model: nn.Module, family: Family, targets: str | Sequence[str]) -> list[str]:
    """Full names of the decoder's linear layers whose last part is in `targets`; all of them for
    `ALL_LINEAR`.

    Only the decoder's blocks are searched: PEFT's defaults for this model match too few or too
    many, and do not report a target without match.

    Raises:
        RecipeError: a target matches no layer.
    """
    known = linear_names(model, family)
    if not known:
        raise RecipeError(
            "lora, but the decoder has no linear layers that it reaches",
            where="trainable.decoder",
            expected="full or frozen for this decoder",
        )
    targets = known if targets == ALL_LINEAR else targets
    for target in targets:
        if target not in known:
            near = difflib.get_close_matches(target, known, n=1)
            raise RecipeError(
                f'"{target}" is not a linear layer of the decoder',
                where="trainable.lora.target_modules",
                expected=f"{ALL_LINEAR}, or a list of " + ", ".join(known),
                do=f'did you mean "{near[0]}"?' if near else None,
            )
    names = _decoder_linears(model, family)
    return [name for name in names if name.rpartition(".")[2] in targets]


def lora_layers(
    model: nn.Module, family: Family, parts: Collection[str], targets: str | Sequence[str]
) -> list[str]:
    """Full names of the layers that get LoRA.

    In the decoder those of `resolve_targets`; in ViT and Q-Former every linear layer of their
    blocks.

    Raises:
        RecipeError: as `resolve_targets`, or the family has LoRA on the decoder alone.
    """
    found = resolve_targets(model, family, targets) if "decoder" in parts else []
    for part in parts:
        if part != "decoder" and not family.image_tokens:
            raise RecipeError(
                f"lora with family {family.name}",
                where=f"trainable.{part}",
                expected="frozen or full: only families with an image prefix have LoRA there",
            )
    return found + [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and _IN_BLOCK.search(name)
        and (part := family.part(name)) in parts
        and part != "decoder"
    ]


_IN_BLOCK = re.compile(r"\.\d+\.")


def stored_transposed(model: nn.Module, targets: Sequence[str]) -> bool:
    """Whether the base stores the weights of these layers (in, out), as `Conv1D` does.

    A 4-bit layer always stores them (out, in); its original layer counts, since the adapter is
    merged into that.

    Raises:
        RecipeError: the layouts are mixed; an adapter has one such setting.
    """
    layers = [(name, model.get_submodule(name)) for name in targets]
    transposed = [
        name
        for name, layer in layers
        if isinstance(layer, Conv1D) or getattr(layer, "source_cls", None) is Conv1D
    ]
    if 0 < len(transposed) < len(targets):
        raise RecipeError(
            f"{len(transposed)} of {len(targets)} weights stored (in, out), first that of "
            f"{transposed[0]}",
            where="trainable.lora.target_modules",
            expected="layers of one kind",
        )
    return bool(transposed)


def _decoder_linears(model: nn.Module, family: Family) -> list[str]:
    """Linear layers in the decoder's blocks. GPT-2's are transformers' `Conv1D`, a linear layer
    whose weight is stored (in, out).
    """
    prefixes = tuple(f"{prefix}." for prefix in family.blocks(model.config))
    return [
        name
        for name, module in model.named_modules()
        if name.startswith(prefixes) and isinstance(module, nn.Linear | Conv1D)
    ]
