"""Preflight checks: the image changes the loss, and trained components have gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from qvft.data.rows import Row
from qvft.errors import PreflightError
from qvft.models.families import Family
from qvft.models.sharded_weights import gradient
from qvft.training.objectives.alignment_losses import combined_loss
from qvft.training.objectives.weighted import WeightedObjective

HEADS = "heads"
IMAGES = 4
HEADS_WITHIN = 100
"""Steps within which every part of the heads must have had a gradient: a batch may have questions
only, or a single caption without negatives."""


def check_image_matters(module: nn.Module, batch: dict[str, Tensor]) -> float:
    """Largest change of a row's loss, nats per token, when the images of a batch are swapped; NaN
    with one image.

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
    component, so one non-zero gradient is enough. Each part of the alignment heads must be reached
    by the first pass, and have a non-zero gradient within `HEADS_WITHIN` steps.

    Args:
        waits: for the first pass with any gradient: samples of equal reward have none.
    """

    def __init__(self, model: nn.Module, family: Family, *, waits: bool = False) -> None:
        self.model, self.family, self.waits = model, family, waits
        self.steps, self.seen, self.done = 0, set[str](), False

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs) -> None:  # noqa: ANN001, ANN003
        """Raises PreflightError naming the components without a gradient.

        `model` is what the Trainer trains: the objective.
        """
        if self.done or (self.waits and not any(map(_size, self.model.parameters()))):
            return
        self.steps += 1
        largest = _largest_of_heads(_heads(model))
        if self.steps == 1:
            check_gradients(self.model, self.family)
            if unreached := [part for part, value in largest.items() if value is None]:
                raise _no_gradient(unreached, after="the first backward pass")
        self.seen |= {part for part, value in largest.items() if value}
        missing = sorted(largest.keys() - self.seen)
        if missing and self.steps == HEADS_WITHIN:
            raise _no_gradient(missing, after=f"{self.steps} steps")
        self.done = not missing


def check_gradients(
    model: nn.Module, family: Family, heads: Sequence[nn.Module] = ()
) -> dict[str, float]:
    """Largest absolute gradient per trained component, with `heads` last.

    Raises:
        PreflightError: a trained component, or a part of the heads, has no gradient, or only zeros.
    """
    largest: dict[str, float] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            component = family.component(name)
            largest[component] = max(_size(parameter) or 0.0, largest.get(component, 0.0))
    of_heads = {part: value or 0.0 for part, value in _largest_of_heads(heads).items()}
    missing = [name for name, value in {**largest, **of_heads}.items() if not value > 0]
    if missing:
        raise _no_gradient(missing, after="the first backward pass")
    return {**largest, **({HEADS: max(of_heads.values())} if of_heads else {})}


def _heads(objective: nn.Module | None) -> Sequence[nn.Module]:
    """Trained modules outside the model."""
    return objective.trained_heads() if isinstance(objective, WeightedObjective) else ()


def _largest_of_heads(heads: Sequence[nn.Module]) -> dict[str, float | None]:
    """Largest absolute gradient per trained part of the heads, such as `heads.itm_head`; None if no
    backward pass reached it.
    """
    largest: dict[str, float | None] = {}
    for name, parameter in (pair for module in heads for pair in module.named_parameters()):
        if parameter.requires_grad:
            part = f"{HEADS}.{name.partition('.')[0]}"
            found = (_size(parameter), largest.get(part))
            largest[part] = max((size for size in found if size is not None), default=None)
    return largest


def _size(parameter: nn.Parameter) -> float | None:
    found = gradient(parameter)
    return None if found is None else float(found.abs().max())


def _no_gradient(names: Sequence[str], *, after: str) -> PreflightError:
    return PreflightError(
        f"after {after} {', '.join(names)} should be trained but has no gradient: it does not "
        "reach the loss; freeze it in trainable, or see what cuts it off"
    )


def check_backward(
    module: nn.Module, model: nn.Module, family: Family, batch: dict[str, Tensor]
) -> dict[str, float]:
    """Runs one backward pass of the objective on a batch; returns and raises as `check_gradients`.

    The gradients are discarded.
    """
    inputs = {key: value for key, value in batch.items() if key != "row_index"}
    was_training = module.training
    module.train()
    try:
        outputs = module(**inputs)
        if isinstance(module, WeightedObjective) and "losses" in outputs:
            counts = {name: loss.count.clamp(min=1) for name, loss in outputs["losses"].items()}
            combined_loss(outputs["losses"], module.weights, counts).backward()
        else:
            (outputs["loss_sum"] / outputs["count"]).backward()
        return check_gradients(model, family, _heads(module))
    finally:
        module.zero_grad(set_to_none=True)
        module.train(was_training)


def preflight_batch(
    collate: Callable[[Sequence[tuple[int, Row]]], dict[str, Tensor]],
    rows: Sequence[tuple[int, Row]],
    place: torch.device,
) -> dict[str, Tensor]:
    """A batch of numbered rows from up to `IMAGES` different images, in order, on a device."""
    chosen: dict[str, tuple[int, Row]] = {}
    for index, row in rows:
        chosen.setdefault(row.sample.id, (index, row))
        if len(chosen) == IMAGES:
            break
    return {key: value.to(place) for key, value in collate(list(chosen.values())).items()}
