"""Optimizer parameter groups: learning rate per component, weight decay for matrices only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from qvft.models.families import Family


def parameter_groups(
    module: nn.Module,
    family: Family,
    learning_rates: Mapping[str, float],
    *,
    weight_decay: float,
    prefix: str = "model.",
) -> list[dict[str, Any]]:
    """AdamW parameter groups of the trained parameters, at most two per component.

    Args:
        module: the trained module; the family's model is under `prefix`, all else is a head.
        learning_rates: per component, and `heads`.
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
        is_head = not inner.startswith(prefix)
        component = "heads" if is_head else family.component(inner.removeprefix(prefix))
        decays = parameter.dim() >= 2 and component != "query_tokens" and not _is_spared(name)
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


def _is_spared(name: str) -> bool:
    """Whether a matrix is a position embedding, or QVision's unused projection of query tokens,
    which decay alone would change.
    """
    return any(
        part in name for part in ("embed_pos", "position_embeddings", ".wpe.", "query_proj.")
    )
