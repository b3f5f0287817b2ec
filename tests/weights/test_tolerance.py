"""Errors of rounding, by arithmetic."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from qvft.weights.merge_plan import round_weight
from qvft.weights.tolerance import SAFETY, jitter, logit_errors, tolerance_of, unit_roundoff


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(torch.float32, 2**-24), (torch.float16, 2**-11), (torch.bfloat16, 2**-8)],
)
def test_unit_roundoff(dtype, expected) -> None:
    assert unit_roundoff(dtype) == expected


@pytest.mark.parametrize("written", [torch.bfloat16, torch.float16])
def test_jitter_is_as_large_as_rounding(written) -> None:
    generator = torch.Generator().manual_seed(1)
    layer = nn.Linear(400, 400, bias=False)
    exact = torch.exp2(6 * torch.rand(400, 400, generator=generator) - 3)
    layer.weight.data = exact.clone()
    jitter(layer, {"weight"}, written=written, computed=torch.float32)
    by_jitter = ((layer.weight - exact) / exact).square().mean().sqrt()
    written_back = round_weight(exact, written, key="w").float()
    by_rounding = ((written_back - exact) / exact).square().mean().sqrt()
    # 160,000 draws give each figure to a fifth of a percent.
    assert by_jitter.item() == pytest.approx(by_rounding.item(), rel=0.01)


def test_weights_that_are_not_rounded_only_suffer_another_order_of_sums() -> None:
    layer = nn.Linear(400, 400, bias=False)
    exact = layer.weight.detach().clone()
    jitter(layer, set(), written=torch.bfloat16, computed=torch.float32)
    off = ((layer.weight - exact) / exact).abs().max()
    assert 0 < off < 6 * (1 + math.sqrt(400)) * 2**-24


def test_the_base_layer_of_an_adapter_counts_as_the_weight_it_is() -> None:
    model = nn.Module()
    model.layer = nn.Module()
    model.layer.base_layer = nn.Linear(100, 100, bias=False)
    exact = model.layer.base_layer.weight.detach().clone()
    jitter(model, {"layer.weight"}, written=torch.bfloat16, computed=torch.float32)
    assert ((model.layer.base_layer.weight - exact) / exact).abs().max() > 2**-9


def test_jitter_draws_the_same_errors_every_time() -> None:
    layers = [nn.Linear(8, 8) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    for layer in layers:
        jitter(layer, {"weight"}, written=torch.float16, computed=torch.float32)
    assert torch.equal(layers[0].weight, layers[1].weight)


def test_logit_errors_are_the_largest_and_the_root_mean_square() -> None:
    ones, other = [torch.zeros(1, 2), torch.zeros(1, 2)], [torch.zeros(1, 2), torch.ones(1, 2)]
    other[1][0, 1] = -3.0
    assert logit_errors(ones, other) == (3.0, math.sqrt(10 / 4))


def test_a_logit_that_is_not_a_number_is_infinitely_off() -> None:
    assert logit_errors([torch.zeros(1, 1)], [torch.full((1, 1), math.nan)]) == (math.inf, math.inf)


def test_the_tolerance_is_a_multiple_of_the_controls_errors() -> None:
    tolerance = tolerance_of([torch.zeros(1, 4)], [torch.tensor([[0.0, 0.0, 0.0, 2.0]])])
    assert (tolerance.largest, tolerance.rms) == (SAFETY * 2, SAFETY * 1)
