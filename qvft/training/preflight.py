"""Checks before and after the first step that training is worth its time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from qvft.errors import PreflightError
from qvft.models.families import Family


def check_image_matters(module: nn.Module, batch: dict[str, Tensor]) -> float:
    """Swaps the images of a batch and sees whether the loss of its rows moves.

    Args:
        module: the language objective.
        batch: a training batch with at least two images that differ.

    Returns:
        Largest change of a row's loss, nats a token.

    Raises:
        PreflightError: no row's loss changed (the image does not reach the decoder), or one is NaN.
    """
    inputs = {key: value for key, value in batch.items() if key != "row_index"}
    images = len(inputs["pixel_values"])
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
    """After the first backward pass, every trained component must have a gradient.

    Weights of one component share their fate (a cut graph, a frozen input under reentrant
    checkpointing), so one non-zero gradient a component is asked for. LoRA's A matrices have none
    at first, since B starts at zero; the component counts as a whole.
    """

    def __init__(self, model: nn.Module, family: Family) -> None:
        self.model, self.family, self.done = model, family, False

    def on_pre_optimizer_step(self, args, state, control, **kwargs) -> None:  # noqa: ANN001, ANN003
        """Raises PreflightError naming the components without a gradient."""
        if self.done:
            return
        self.done = True
        check_gradients(self.model, self.family)


def check_gradients(model: nn.Module, family: Family) -> dict[str, float]:
    """Largest absolute gradient by trained component.

    Raises:
        PreflightError: a trained component has none, or only zeros.
    """
    largest: dict[str, float] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            component = family.component(name)
            gradient = parameter.grad
            value = 0.0 if gradient is None else float(gradient.detach().abs().max())
            largest[component] = max(value, largest.get(component, 0.0))
    dead = [component for component, value in largest.items() if not value > 0]
    if dead:
        raise PreflightError(
            f"after the first backward pass {', '.join(dead)} should be trained but has no "
            "gradient: it does not reach the loss; freeze it in tune, or see what cuts it off"
        )
    return largest


def check_backward(
    module: nn.Module, model: nn.Module, family: Family, batch: dict[str, Tensor]
) -> dict[str, float]:
    """One backward pass on a batch, whose gradients are dropped again.

    Returns:
        As `check_gradients`.

    Raises:
        PreflightError: a trained component has no gradient.
    """
    inputs = {key: value for key, value in batch.items() if key != "row_index"}
    was_training = module.training
    module.train()
    try:
        outputs = module(**inputs)
        (outputs["loss_sum"] / outputs["count"]).backward()
        return check_gradients(model, family)
    finally:
        module.zero_grad(set_to_none=True)
        module.train(was_training)


def distinct_first(sample_ids: Sequence[str], count: int) -> list[int]:
    """Indices of rows from up to `count` different images, in order."""
    seen: dict[str, int] = {}
    for index, sample_id in enumerate(sample_ids):
        seen.setdefault(sample_id, index)
        if len(seen) == count:
            break
    return list(seen.values())
