"""Rounding merged weights: exact where it can be, right on average where it cannot."""

import torch

from qvft.weights.merge_plan import round_weight

STEP = 2**-7  # from 1 to the next bfloat16


def test_weights_on_the_grid_stay_as_they_are() -> None:
    weights = torch.randn(1000, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    assert torch.equal(round_weight(weights.float(), torch.bfloat16, key="w"), weights)


def test_a_weight_becomes_one_of_its_two_neighbours() -> None:
    rounded = round_weight(torch.full((1000,), 1 + STEP / 8), torch.bfloat16, key="w").float()
    assert set(rounded.tolist()) == {1.0, 1 + STEP}


def test_an_update_below_half_a_step_survives_on_average() -> None:
    count, share = 100_000, 0.2
    for sign in (1, -1):
        exact = torch.full((count,), sign * (1 + share * STEP))
        assert torch.equal(exact.to(torch.bfloat16).float(), torch.full((count,), float(sign)))
        kept = round_weight(exact, torch.bfloat16, key="w").float().mean().item()
        # The share rounded up is binomial: five standard deviations of its mean.
        slack = 5 * (share * (1 - share) / count) ** 0.5 * STEP
        assert abs(kept - sign * (1 + share * STEP)) < slack


def test_the_same_key_gives_the_same_bits_and_another_gives_others() -> None:
    exact = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    first = round_weight(exact, torch.bfloat16, key="a")
    assert torch.equal(first, round_weight(exact, torch.bfloat16, key="a"))
    assert not torch.equal(first, round_weight(exact, torch.bfloat16, key="b"))


def test_float32_is_left_exact_and_float16_goes_to_the_nearest() -> None:
    exact = torch.randn(1000, generator=torch.Generator().manual_seed(2))
    assert torch.equal(round_weight(exact, torch.float32, key="w"), exact)
    assert torch.equal(round_weight(exact, torch.float16, key="w"), exact.to(torch.float16))
