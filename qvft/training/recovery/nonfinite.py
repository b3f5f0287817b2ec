"""NaN and infinity: locates the first in batch, weights, outputs or gradients, and names it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from math import isfinite
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from qvft.errors import ModelError, NonFiniteLossError
from qvft.models.families import family_of

NAMED = 8
"""Maximum number of samples that a message names."""


def find_non_finite(
    objective: nn.Module,
    batch: Mapping[str, Tensor],
    loss_of: Callable[[Mapping[str, Tensor]], tuple[Tensor, Mapping[str, Any]]],
) -> tuple[str, tuple[int, ...]] | None:
    """What is first not finite in a batch's forward and backward pass, and the numbers of the
    affected rows (all if unknown); None if all is finite.

    Repeats forward and backward pass with hooks: modules in the order in which they return, so
    innermost first; weights in the order of their gradients. Gradients are discarded.
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
        return given[0], rows
    if weights:
        return f"the weights of {_with_component(objective, weights[0])}", rows
    if outputs:
        what = f"the output of {_with_component(objective, outputs[0])}"
        return what, _rows_with_bad_loss(returned, rows)
    if gradients:
        return f"the gradient of {_with_component(objective, gradients[0])}", rows
    return None if _finite(loss) else ("the loss itself", _rows_with_bad_loss(returned, rows))


def _with_component(objective: nn.Module, name: str) -> str:
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


def _rows_with_bad_loss(returned: Mapping[str, Any], rows: tuple[int, ...]) -> tuple[int, ...]:
    """Rows whose own loss is not finite, if the objective returns losses per row."""
    losses = returned.get("row_loss")
    pairs = zip(rows, [] if losses is None else losses.tolist(), strict=losses is not None)
    return tuple(row for row, loss in pairs if not isfinite(loss)) or rows


def non_finite_loss(
    loss: float, norm: float, *, step: int, found: Sequence[tuple[str, list[str]]]
) -> NonFiniteLossError:
    """Error for a step whose loss or gradient is NaN or infinite."""
    what = f"the norm of the gradient is {norm}" if isfinite(loss) else f"the loss is {loss}"
    kept = "no weight has changed by it, and earlier checkpoints stay"
    if not found:
        return NonFiniteLossError(
            f"{what} at step {step}, but a second pass over its samples is finite: dropout, or "
            f"sums in another order, caused it; {kept}"
        )
    first, samples = found[0]
    return NonFiniteLossError(
        f"{what} at step {step}; samples: {some_of(samples)}; first in {first}; {kept}; look at "
        "these samples, or train with a lower train.learning_rate, more train.warmup_steps or "
        "train.mixed_precision=no"
    )


def some_of(samples: Sequence[str]) -> str:
    """The first samples, and how many more there are; metrics.jsonl has them all."""
    further = len(samples) - NAMED
    return ", ".join(samples[:NAMED]) + (f" and {further} more" if further > 0 else "")
