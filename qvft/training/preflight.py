"""Preflight checks: the image changes the loss, and trained components have gradients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from qvft.errors import PreflightError
from qvft.models.families import Family
from qvft.models.sharded_weights import gradient
from qvft.training.objectives.alignment import AlignmentObjective
from qvft.training.objectives.alignment_losses import combined_loss

HEADS = "heads"
HEADS_WITHIN = 100
"""Steps within which every part of the heads must have had a gradient: a batch may have questions
only, or a single caption without negatives."""


def check_image_matters(module: nn.Module, batch: dict[str, Tensor]) -> float:
    """Checks that the loss changes when the images of a batch are swapped.

    Args:
        module: the language objective.
        batch: a training batch with at least two images that differ.

    Returns:
        Largest change of a row's loss, nats per token.

    Raises:
        PreflightError: no row's loss changed (the image does not reach the decoder), or one is NaN.
    """
    inputs = {key: value for key, value in batch.items() if key != "row_index"}
    images = int(inputs["image_index"].max()) + 1
    if images < 2:
        return float("nan")
    was_training = module.training
    module.eval()
    with torch.no_grad():
        straight = module(**inputs)["row_loss"]
        swapped = {**inputs, "image_index": (inputs["image_index"] + 1) % images}
        moved = (module(**swapped)["row_loss"] - straight).abs().max()
    module.train(was_training)
    if torch.isnan(moved):
        raise PreflightError("a row's loss is not finite before the first step: check the weights")
    if not moved > 0:
        raise PreflightError(
            "exchanging the images of a batch leaves every loss bit-identical: the image does not "
            "reach the decoder; check that the processor belongs to the model and that its ViT is "
            "not freshly initialised with a spread of 1e-10"
        )
    return float(moved)


class GradientCheck(TrainerCallback):
    """Callback that checks after the first backward pass that every trained component has a
    gradient.

    A detached graph or a frozen input under reentrant checkpointing affects all weights of a
    component, so one non-zero gradient per component is required. LoRA's A matrices have zero
    gradient at first, since B starts at zero; the component counts as a whole.

    Alignment heads are checked part by part: each must be reached by the first pass, and have a
    non-zero gradient within `HEADS_WITHIN` steps.
    """

    def __init__(self, model: nn.Module, family: Family) -> None:
        self.model, self.family = model, family
        self.steps, self.seen, self.done = 0, set[str](), False

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs) -> None:  # noqa: ANN001, ANN003
        """Raises PreflightError naming the components without a gradient.

        `model` is what the Trainer trains: the objective.
        """
        if self.done:
            return
        self.steps += 1
        heads = model.trained_heads() if isinstance(model, AlignmentObjective) else []
        if self.steps == 1:
            check_gradients(self.model, self.family)
            if heads:
                _require(part for part, reached in _reached(heads).items() if not reached)
        waiting = set[str]()
        if heads:
            largest = _largest(heads)
            self.seen |= {part for part, value in largest.items() if value > 0}
            waiting = largest.keys() - self.seen
        if waiting and self.steps == HEADS_WITHIN:
            _require(sorted(waiting), when=f"{self.steps} steps")
        self.done = not waiting


def check_gradients(
    model: nn.Module, family: Family, heads: Sequence[nn.Module] = ()
) -> dict[str, float]:
    """Largest absolute gradient per trained component, with `heads` last.

    Args:
        heads: trained modules outside the model; each part must have a gradient.

    Raises:
        PreflightError: a trained component, or a part of the heads, has no gradient, or only zeros.
    """
    largest: dict[str, float] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            component = family.component(name)
            largest[component] = max(_size(parameter), largest.get(component, 0.0))
    of_heads = _largest(heads)
    _require(name for name, value in {**largest, **of_heads}.items() if not value > 0)
    return {**largest, **({HEADS: max(of_heads.values())} if of_heads else {})}


def _largest(heads: Iterable[nn.Module]) -> dict[str, float]:
    """Largest absolute gradient per trained part of the heads, such as `heads.itm_head`."""
    largest: dict[str, float] = {}
    for part, parameter in _parts(heads):
        largest[part] = max(_size(parameter), largest.get(part, 0.0))
    return largest


def _reached(heads: Iterable[nn.Module]) -> dict[str, bool]:
    """Whether a backward pass reached any weight of a part, even with zero gradient."""
    reached: dict[str, bool] = {}
    for part, parameter in _parts(heads):
        reached[part] = reached.get(part, False) or gradient(parameter) is not None
    return reached


def _parts(heads: Iterable[nn.Module]) -> list[tuple[str, nn.Parameter]]:
    return [
        (f"{HEADS}.{name.partition('.')[0]}", parameter)
        for module in heads
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    ]


def _size(parameter: nn.Parameter) -> float:
    found = gradient(parameter)
    return 0.0 if found is None else float(found.abs().max())


def _require(dead: Iterable[str], *, when: str = "the first backward pass") -> None:
    names = ", ".join(dead)
    if names:
        raise PreflightError(
            f"after {when} {names} should be trained but has no "
            "gradient: it does not reach the loss; freeze it in trainable, or see what cuts it off"
        )


def check_backward(
    module: nn.Module, model: nn.Module, family: Family, batch: dict[str, Tensor]
) -> dict[str, float]:
    """Runs one backward pass on a batch and checks its gradients, which are discarded.

    Args:
        module: the objective.

    Returns:
        As `check_gradients`.

    Raises:
        PreflightError: a trained component has no gradient.
    """
    inputs = {key: value for key, value in batch.items() if key != "row_index"}
    was_training = module.training
    module.train()
    try:
        _loss(module, module(**inputs)).backward()
        heads = module.trained_heads() if isinstance(module, AlignmentObjective) else []
        return check_gradients(model, family, heads)
    finally:
        module.zero_grad(set_to_none=True)
        module.train(was_training)


def _loss(module: nn.Module, outputs: Mapping) -> Tensor:
    """The batch's loss, divided as if it were the whole step."""
    if not isinstance(module, AlignmentObjective):
        return outputs["loss_sum"] / outputs["count"]
    counts = {name: loss.count.clamp(min=1) for name, loss in outputs["losses"].items()}
    return combined_loss(outputs["losses"], module.weights, counts)


def distinct_first(sample_ids: Sequence[str], count: int) -> list[int]:
    """Indices of rows from up to `count` different images, in order."""
    seen: dict[str, int] = {}
    for index, sample_id in enumerate(sample_ids):
        seen.setdefault(sample_id, index)
        if len(seen) == count:
            break
    return list(seen.values())
