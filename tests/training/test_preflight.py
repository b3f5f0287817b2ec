"""Checks around the first step, on modules small enough to see through."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from qvft.errors import PreflightError
from qvft.models.families import FAMILIES
from qvft.training.preflight import (
    GradientCheck,
    check_backward,
    check_image_matters,
    distinct_first,
)

BLIP2 = FAMILIES["blip2"]


class Objective(nn.Module):
    """A row's loss is `scale` times the mean of its image, through two trained components."""

    def __init__(self, *, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.qformer = nn.Linear(1, 1, bias=False)
        self.language_projection = nn.Linear(1, 1, bias=False)
        nn.init.ones_(self.qformer.weight)
        nn.init.ones_(self.language_projection.weight)

    def forward(self, pixel_values: Tensor, image_index: Tensor) -> dict[str, Tensor]:
        means = self.scale * pixel_values.flatten(1).mean(1, keepdim=True)
        loss = self.language_projection(self.qformer(means))[image_index, 0]
        return {"row_loss": loss, "loss_sum": loss.sum(), "count": torch.tensor(len(loss))}


def batch(*values: float) -> dict[str, Tensor]:
    pixels = torch.tensor(values).reshape(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    return {"pixel_values": pixels, "image_index": torch.arange(len(values))}


def test_the_largest_change_of_a_rows_loss_is_told() -> None:
    # Each row gets the next image: changes of 1 - 4, 4 - 2 and 2 - 1.
    assert check_image_matters(Objective(), batch(1.0, 4.0, 2.0)) == 3.0


def test_one_image_cannot_be_exchanged() -> None:
    assert math.isnan(check_image_matters(Objective(), batch(1.0)))


def test_a_loss_that_is_not_finite_is_not_called_a_missing_image() -> None:
    with pytest.raises(PreflightError, match="not finite"):
        check_image_matters(Objective(scale=float("nan")), batch(1.0, 2.0))


def test_the_check_leaves_the_mode_of_training_as_it_was() -> None:
    module = Objective().train()
    check_image_matters(module, batch(1.0, 2.0))
    assert module.training


def test_one_backward_pass_tells_gradients_and_drops_them() -> None:
    module = Objective()
    # The mean of the images is 3 and every weight is 1: so are both gradients.
    largest = check_backward(module, module, BLIP2, batch(2.0, 4.0))
    assert largest == {"qformer": 3.0, "language_projection": 3.0}
    assert all(parameter.grad is None for parameter in module.parameters())


def test_only_the_first_backward_pass_is_checked() -> None:
    module = Objective()
    check = GradientCheck(module, BLIP2)
    module(**batch(2.0))["loss_sum"].backward()
    check.on_pre_optimizer_step(None, None, None)
    module.zero_grad()
    check.on_pre_optimizer_step(None, None, None)
    with pytest.raises(PreflightError, match="qformer, language_projection"):
        GradientCheck(module, BLIP2).on_pre_optimizer_step(None, None, None)


def test_rows_of_different_images_are_chosen() -> None:
    assert distinct_first(["a", "a", "b", "c", "b", "d"], 3) == [0, 2, 3]
    assert distinct_first(["a", "a"], 3) == [0]
