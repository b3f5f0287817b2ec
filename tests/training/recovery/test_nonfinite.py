"""Where what is not finite first appears."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qvft.recipe.load import load_recipe
from qvft.training.objectives.language import LanguageModelling
from qvft.training.prepare_training import prepare_training
from qvft.training.recovery.nonfinite import find_non_finite
from qvft.training.training_run import TrainingRun


@pytest.fixture
def work(recipe_file: Path) -> TrainingRun:
    return prepare_training(load_recipe(recipe_file))


def found_in(work: TrainingRun, batch: Mapping[str, Tensor]) -> tuple[str, list[int]] | None:
    objective = LanguageModelling(work.loaded.model).train()

    def loss_of(batch: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Any]]:
        outputs = objective(**{key: value for key, value in batch.items() if key != "row_index"})
        return outputs["loss_sum"] / outputs["count"], outputs

    found = find_non_finite(objective, batch, loss_of)
    assert all(parameter.grad is None for parameter in objective.parameters())
    return found and (found[0], list(found[1]))


@pytest.fixture
def batch(work: TrainingRun) -> dict[str, Tensor]:
    rows = work.rows(work.plans[0], work.train, training=True)
    work.counts(work.plans[0])  # freezes and unfreezes
    return work.loaded.collator([(index, rows[index]) for index in (0, 7, 30)])


def test_a_sound_batch_has_nothing(work: TrainingRun, batch: dict[str, Tensor]) -> None:
    assert found_in(work, batch) is None


def test_an_image_of_the_batch(work: TrainingRun, batch: dict[str, Tensor]) -> None:
    batch["pixel_values"][1, 0, 3, 3] = float("nan")
    assert found_in(work, batch) == ("the batch's pixel_values", [0, 7, 30])


def test_a_weight_with_its_component(work: TrainingRun, batch: dict[str, Tensor]) -> None:
    with torch.no_grad():
        work.loaded.model.language_projection.bias[0] = float("inf")
    what, _ = found_in(work, batch)
    assert what == "the weights of language_projection.bias (language_projection)"


def test_the_innermost_module_and_the_row_it_concerns(
    work: TrainingRun, batch: dict[str, Tensor]
) -> None:
    def overflow(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        rows = output.clone().view(3, -1, output.shape[-1])
        rows[1] = float("inf")
        return rows.view(output.shape)

    layer = work.loaded.model.language_model.model.decoder.layers[1].fc2
    with layer.register_forward_hook(overflow):
        what, rows = found_in(work, batch)
    assert what == "the output of language_model.model.decoder.layers.1.fc2 (decoder)"
    assert rows == [7]


class NoGradient(torch.autograd.Function):
    """Hands its input on; its gradient is NaN, as that of 0 * sqrt(x) at zero."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * float("nan")


def test_a_gradient_where_all_outputs_are_finite(
    work: TrainingRun, batch: dict[str, Tensor]
) -> None:
    projection = work.loaded.model.language_projection
    with projection.register_forward_hook(lambda module, inputs, out: NoGradient.apply(out)):
        what, rows = found_in(work, batch)
    assert what.startswith("the gradient of language_projection.")
    assert rows == [0, 7, 30]
