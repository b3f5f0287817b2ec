"""Parity of two models: compares logits and generated tokens on the same samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from qvft.errors import VerificationError
from qvft.weights.probe_outputs import Output
from qvft.weights.tolerance import Tolerance, logit_errors


@dataclass(frozen=True)
class Comparison:
    """Difference of a model from the reference.

    Attributes:
        rows: samples compared. positions: tokens whose logits were compared.
        spread: mean standard deviation of the reference's logits over the vocabulary.
        largest_error, rms_error: errors of the logits.
        tolerance: allowed errors by rounding.
        equal_texts: samples with identical greedy text.
        near_ties: samples whose texts diverge at a token where the reference's top two logits are
            closer than the tolerance: row, token, margin.
        parted: samples whose texts diverge elsewhere.
    """

    rows: int
    positions: int
    spread: float
    largest_error: float
    rms_error: float
    tolerance: Tolerance
    equal_texts: int
    near_ties: tuple[dict[str, Any], ...]
    parted: tuple[dict[str, Any], ...]

    @property
    def headroom(self) -> float:
        """Factor by which errors could grow within the tolerance: the smaller of both ratios."""
        largest = self.tolerance.largest / max(self.largest_error, 1e-30)
        return min(largest, self.tolerance.rms / max(self.rms_error, 1e-30))

    def figures(self) -> dict[str, Any]:
        """All values, for a report."""
        return {**asdict(self), "headroom": self.headroom}


def logit_spread(outputs: Sequence[Output]) -> float:
    """Standard deviation of logits over the vocabulary, root mean square over all positions."""
    variances = [output.logits.var(dim=-1, correction=0).double().mean() for output in outputs]
    return math.sqrt(float(sum(variances)) / len(variances))


def compare(
    reference: Sequence[Output], candidate: Sequence[Output], tolerance: Tolerance
) -> Comparison:
    """Compares outputs of `candidate` and `reference` on the same samples."""
    largest, rms = logit_errors(
        [output.logits for output in reference], [output.logits for output in candidate]
    )
    pairs = zip(reference, candidate, strict=True)
    found = [place for one, other in pairs if (place := _divergence(one, other)) is not None]
    ties = tuple(place for place in found if place["margin"] < tolerance.largest)
    return Comparison(
        rows=len(reference),
        positions=sum(output.logits.shape[0] for output in reference),
        spread=logit_spread(reference),
        largest_error=largest,
        rms_error=rms,
        tolerance=tolerance,
        equal_texts=len(reference) - len(found),
        near_ties=ties,
        parted=tuple(place for place in found if place not in ties),
    )


def require_equal(comparison: Comparison, *, what: str) -> None:
    """Raises VerificationError unless logits are within the tolerance and texts are equal."""
    allowed = comparison.tolerance
    largest, rms = comparison.largest_error, comparison.rms_error
    if not (largest <= allowed.largest and rms <= allowed.rms):
        raise VerificationError(
            f"the logits of {what} are off those of base and adapter by up to {largest:.3g} and "
            f"{rms:.3g} root mean square, where rounding explains {allowed.largest:.3g} and "
            f"{allowed.rms:.3g} (spread of the logits: {comparison.spread:.3g})"
        )
    if comparison.parted:
        first = comparison.parted[0]
        raise VerificationError(
            f"{what} writes other text than base and adapter for {len(comparison.parted)} of "
            f"{comparison.rows} samples, first {first['row']} at token {first['token']}, where the "
            f"margin is {first['margin']:.3g} and rounding explains {allowed.largest:.3g}"
        )


def _divergence(one: Output, other: Output) -> dict[str, Any] | None:
    """Position where two greedy texts diverge, None if they are equal."""
    if one.new_ids == other.new_ids and one.text == other.text:
        return None
    pairs = zip(one.new_ids, other.new_ids, strict=False)
    shorter = min(len(one.new_ids), len(other.new_ids))
    token = next((place for place, (a, b) in enumerate(pairs) if a != b), shorter)
    same_ids = one.new_ids == other.new_ids
    margin = math.inf if same_ids or token >= len(one.margins) else one.margins[token]
    return {"row": one.row_id, "token": token, "margin": margin}


def comparison_line(figures: Mapping[str, Any], *, judged: bool = True) -> str:
    """Result of a parity check, in one line."""
    allowed = f" (allowed {figures['tolerance']['largest']:.2g})" if judged else ""
    return (
        f"{figures['equal_texts']} of {figures['rows']} texts equal, logits off by at most "
        f"{figures['largest_error']:.2g}{allowed}, {figures['rms_error']:.2g} on average, "
        f"at a spread of {figures['spread']:.2g}"
    )
