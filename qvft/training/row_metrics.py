"""Metrics of an evaluation during training, from the outputs per row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qvft.data.rows import Row
from qvft.errors import NonFiniteLossError
from qvft.training.recovery.nonfinite import some_of

OF_ROWS = ("row_loss", "row_count", "exact", "margin")
"""What an objective returns per row in evaluation mode; the margin only of pairs."""


def row_means(values: NDArray[np.floating], rows: Sequence[Row], *, step: int) -> dict[str, float]:
    """Metrics over all rows at once, independent of batch size and number of processes: loss per
    token in nats, exact match in percent; of pairs, loss per pair, and share and margin of those
    whose chosen text has the higher reward. Of rows from a list of sources, also those of each
    source, `NAME_token_loss` and so on.

    Args:
        values: (N, 3) of texts, (N, 4) of pairs: the columns of `OF_ROWS`.

    Raises:
        NonFiniteLossError: a loss is not finite.
    """
    bad = (~np.isfinite(values[:, 0])).nonzero()[0]
    if len(bad):
        raise NonFiniteLossError(
            f"the loss of {len(bad)} evaluation rows is not finite at step {step}; samples: "
            f"{some_of([rows[row].id for row in bad.tolist()])}"
        )
    means = _means(values)
    places: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        if row.sample.origin.name:
            places.setdefault(row.sample.origin.name, []).append(place)
    for name, found in places.items():
        means |= {f"{name}_{key}": value for key, value in _means(values[found]).items()}
    return means


def _means(values: NDArray[np.floating]) -> dict[str, float]:
    loss, tokens, exact, *margins = values.astype("float64").T
    if margins:
        return {
            "pair_loss": float(loss.mean()),
            "rewards/accuracies": float(exact.mean()),
            "rewards/margins": float(margins[0].mean()),
        }
    return {
        "token_loss": float((loss * tokens).sum() / tokens.sum()),
        "exact_match": float(100 * exact.mean()),
    }
