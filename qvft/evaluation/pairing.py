"""Matches the items of two evaluations by id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qvft.errors import DataError
from qvft.evaluation.rows import PredictionRow


@dataclass(frozen=True)
class Pairing:
    """The items of A that B also has.

    Attributes:
        here: their row numbers in A. texts: B's texts for them.
        only_a, only_b: ids of only one side.
    """

    here: list[int]
    texts: list[str]
    only_a: list[str]
    only_b: list[str]


def pair(rows: Sequence[PredictionRow], others: Sequence[PredictionRow], *, where: str) -> Pairing:
    """Matches items by id.

    Items of only one side are named, not compared. A common id must be the same item: equal kind,
    question, references and image file name. Otherwise the data differs.

    Args:
        rows: rows of A; their predictions are not used.

    Raises:
        DataError: an id is of different items, or none is common.
    """
    found = {row.id: row for row in others}
    here = [index for index, row in enumerate(rows) if row.id in found]
    differing = {
        rows[index].id: parts
        for index in here
        if (parts := differing_parts(rows[index], found[rows[index].id]))
    }
    if differing:
        first = "; ".join(
            f"{key!r}: {', '.join(parts)}" for key, parts in list(differing.items())[:3]
        )
        raise DataError(
            f"{len(differing)} of {len(here)} items with the same id differ in more than the "
            f"prediction ({first})",
            where=where,
            expected="an evaluation of the same data",
            do="evaluate both on one version of the data",
        )
    if not here:
        raise DataError(
            "no item is in both", where=where, expected="an evaluation with the same ids"
        )
    known = {row.id for row in rows}
    return Pairing(
        here,
        [found[rows[index].id].prediction for index in here],
        [row.id for row in rows if row.id not in found],
        [row.id for row in others if row.id not in known],
    )


def differing_parts(one: PredictionRow, other: PredictionRow) -> list[str]:
    """Fields in which two rows differ; the image's folder is ignored."""
    pairs = {
        "image": (Path(one.image).name, Path(other.image).name),
        "kind": (one.kind, other.kind),
        "question": (one.question, other.question),
        "references": (sorted(one.references), sorted(other.references)),
    }
    return [part for part, (first, second) in pairs.items() if first != second]
