"""Optimizer parameter groups: learning rate per component, weight decay for matrices only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from qvft.models.families import Family

_WITHOUT_DECAY = ("embed_pos", "position_embeddings", ".wpe.", "query_proj.")
"""Matrices without weight decay: position embeddings, and QVision's unused projection of query
tokens, which decay alone would change."""


def parameter_groups(
    module: nn.Module, family: Family, learning_rates: Mapping[str, float], *, weight_decay: float
) -> list[dict[str, Any]]:
    """AdamW parameter groups of the trained parameters, at most two per component.

    Args:
        weight_decay: applied to parameters of two or more dimensions except query tokens, position
            embeddings and weights without gradient; not to biases and norms.

    Returns:
        Groups with `params`, `lr`, `weight_decay` and `name`, in a fixed order.
    """
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        inner = name.removeprefix("module.")
        is_head = not inner.startswith("model.")
        component = "heads" if is_head else family.component(inner.removeprefix("model."))
        spared = component == "query_tokens" or any(part in name for part in _WITHOUT_DECAY)
        decays = parameter.dim() >= 2 and not spared
        groups.setdefault((component, decays), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": learning_rates[component],
            "weight_decay": weight_decay if decays else 0.0,
            "name": component if decays else f"{component}, no decay",
        }
        for (component, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def keep_embeddings_in_32_bits(module: nn.Module) -> None:
    """Excludes trained embeddings from bitsandbytes' 8-bit optimizers, as the Trainer does."""
    from bitsandbytes.optim import GlobalOptimManager

    for part in module.modules():
        if isinstance(part, nn.Embedding) and part.weight.requires_grad:
            GlobalOptimManager.get_instance().register_module_override(
                part, "weight", {"optim_bits": 32}
            )
