"""Comparing outputs: what passes, what fails, what is only reported."""

from __future__ import annotations

import math

import pytest
import torch

from qvft.errors import VerificationError
from qvft.weights.parity import compare, logit_spread, require_equal
from qvft.weights.probe_outputs import Output
from qvft.weights.tolerance import Tolerance

TIGHT = Tolerance(rms=0.01, largest=0.1)


def output(*, ids=(5, 6), shift=0.0, margins=(1.0, 1.0, 1.0), text=None, row="a") -> Output:
    logits = torch.tensor([[0.0, 2.0], [0.0, 2.0]])
    logits[0, 0] += shift
    return Output(row, logits, tuple(ids), tuple(margins), text or str(ids))


def check(one: Output, other: Output, tolerance: Tolerance = TIGHT) -> None:
    require_equal(compare([one], [other], tolerance), what="A")


def test_equal_outputs_pass_with_the_spread_of_the_logits() -> None:
    found = compare([output()], [output()], TIGHT)
    assert (found.rows, found.positions, found.equal_texts) == (1, 2, 1)
    assert found.spread == logit_spread([output()]) == 1.0
    assert found.largest_error == found.rms_error == 0.0


def test_a_single_logit_off_by_too_much_fails_with_figures() -> None:
    with pytest.raises(VerificationError, match=r"up to 0.2 .*explains 0.1"):
        check(output(), output(shift=0.2), Tolerance(rms=1.0, largest=0.1))


def test_many_logits_off_by_a_little_fail() -> None:
    with pytest.raises(VerificationError, match="root mean square"):
        check(output(), output(shift=0.05))


def test_a_logit_that_is_not_a_number_fails() -> None:
    with pytest.raises(VerificationError):
        check(output(), output(shift=math.nan), Tolerance(rms=9.0, largest=9.0))


def test_other_text_fails() -> None:
    with pytest.raises(VerificationError, match="first a at token 1, where the margin is 1"):
        check(output(), output(ids=(5, 7)))


def test_a_text_that_stops_elsewhere_fails_at_the_stop() -> None:
    with pytest.raises(VerificationError, match="at token 2"):
        check(output(), output(ids=(5, 6, 7)))


def test_equal_tokens_that_read_differently_fail() -> None:
    with pytest.raises(VerificationError, match="margin is inf"):
        check(output(), output(text="other"))


def test_texts_that_part_at_a_near_tie_pass_and_are_reported() -> None:
    reference = output(margins=(1.0, 0.09, 1.0))
    found = compare([reference], [output(ids=(5, 7))], TIGHT)
    require_equal(found, what="A")
    assert found.near_ties == ({"row": "a", "token": 1, "margin": 0.09},)
    assert found.equal_texts == 0
