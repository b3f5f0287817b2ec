"""Locates the first NaN or infinity: batch, weight, output or gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from qvft.errors import ModelError
from qvft.models.families import family_of


@dataclass(frozen=True)
class NonFinite:
    """Where a non-finite value was found.

    Attributes:
        what: description with component and name.
        rows: numbers of the affected rows; all of the batch if unknown.
    """

    what: str
    rows: tuple[int, ...]


def find_non_finite(
    objective: nn.Module,
    batch: Mapping[str, Tensor],
    loss_of: Callable[[Mapping[str, Tensor]], tuple[Tensor, Mapping[str, Any]]],
) -> NonFinite | None:
    """The first non-finite value in a batch's forward and backward pass; None if there is none.

    Repeats forward and backward pass with hooks: modules in the order in which they return, so
    innermost first; weights in the order of their gradients. Gradients are discarded.

    Args:
        objective: the objective around the model.
        loss_of: computes the loss of a batch and the objective's output.
    """
    rows = tuple(batch["row_index"].tolist())
    given = [f"the batch's {name}" for name, tensor in batch.items() if not _finite(tensor)]
    weights = [name for name, weight in objective.named_parameters() if not _finite(weight)]
    outputs: list[str] = []
    gradients: list[str] = []
    objective.zero_grad()
    with ExitStack() as hooks:
        for handle in _hooked(objective, outputs, gradients):
            hooks.callback(handle.remove)
        # Also after a finding: with several processes the others wait in a collective call here.
        loss, returned = loss_of(batch)
        loss.backward()
    objective.zero_grad()
    if given:
        return NonFinite(given[0], rows)
    if weights:
        return NonFinite(f"the weights of {named(objective, weights[0])}", rows)
    if outputs:
        what = f"what {named(objective, outputs[0])} puts out"
        return NonFinite(what, _concerned(returned, rows))
    if gradients:
        return NonFinite(f"the gradient of {named(objective, gradients[0])}", rows)
    return None if _finite(loss) else NonFinite("the loss itself", _concerned(returned, rows))


def named(objective: nn.Module, name: str) -> str:
    """Name of a module or parameter of an objective, with its component."""
    part, _, inner = name.partition(".")
    if part != "model" or not inner:
        return name
    try:
        model = cast(PreTrainedModel, objective.get_submodule("model"))
        component = family_of(model.config.model_type).component(inner)
    except ModelError:  # a module around several components
        return inner
    return inner if component == inner else f"{inner} ({component})"


def _hooked(
    objective: nn.Module, outputs: list[str], gradients: list[str]
) -> Iterator[torch.utils.hooks.RemovableHandle]:
    def look(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        if not outputs and not all(map(_finite, _tensors(output))):
            outputs.append(name)

    def look_back(name: str, parameter: nn.Parameter) -> None:
        if not gradients and not _finite(parameter.grad):
            gradients.append(name)

    for name, module in objective.named_modules():
        if name:
            yield module.register_forward_hook(partial(look, name))
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            yield parameter.register_post_accumulate_grad_hook(partial(look_back, name))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _tensors(inner)
    elif isinstance(value, tuple | list):
        for inner in value:
            yield from _tensors(inner)


def _finite(tensor: Tensor | None) -> bool:
    if tensor is None or not tensor.is_floating_point():
        return True
    return bool(torch.isfinite(tensor).all())


def _concerned(returned: Mapping[str, Any], rows: tuple[int, ...]) -> tuple[int, ...]:
    """Rows whose own loss is not finite, if the objective returns losses per row."""
    losses = returned.get("row_loss")
    if losses is None:
        return rows
    pairs = zip(rows, losses.tolist(), strict=True)
    bad = tuple(row for row, loss in pairs if not isfinite(loss))
    return bad or rows
