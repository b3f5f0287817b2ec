"""Chooses the best and the worst text of each prompt as a preference pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from qvft.data.quality.texts import normal
from qvft.data.rows import Row
from qvft.data.sample import Pair
from qvft.errors import DataError
from qvft.evaluation.pairs.text_scores import score_texts


@dataclass
class Chosen:
    """Pairs by row, and what became of the other rows.

    Attributes:
        pairs: with the row of each.
        chosen_scores, rejected_scores: scores of the texts of each pair.
        ties: rows whose texts all have the same score.
        one_text: rows with fewer than two different texts.
        unscored: rows with fewer than two texts that have a score.
    """

    pairs: list[tuple[Row, Pair]] = field(default_factory=list)
    chosen_scores: list[float] = field(default_factory=list)
    rejected_scores: list[float] = field(default_factory=list)
    ties: int = 0
    one_text: int = 0
    unscored: int = 0

    def described(self) -> str:
        """What became of the rows without a pair, in words; empty if there are none."""
        counts = (
            (self.ties, "with equal scores"),
            (self.one_text, "with fewer than two different texts"),
            (self.unscored, "with fewer than two scores"),
        )
        return ", ".join(
            f"{count:,} row{'s' * (count > 1)} {what}" for count, what in counts if count
        )


def best_and_worst(
    rows: Sequence[Row],
    texts: Sequence[Sequence[str]],
    metric: str,
    *,
    against_reference: bool = False,
) -> Chosen:
    """One pair per row: the text with the highest score and the one with the lowest.

    Texts that are equal after `texts.normal` count once; empty ones are left out. Of equal scores
    the first text counts.

    Args:
        metric: as in `text_scores.score_texts`, also its errors.
        against_reference: the chosen text is the training target, and the rejected one must have a
            lower score than it.
    """
    different = [
        _different([row.target, *own] if against_reference else own)
        for row, own in zip(rows, texts, strict=True)
    ]
    found = Chosen()
    for row, own, scores in zip(rows, different, score_texts(rows, different, metric), strict=True):
        scored = [
            (score, text) for score, text in zip(scores, own, strict=True) if score is not None
        ]
        if len(own) < 2:
            found.one_text += 1
            continue
        if len(scored) < 2 or (against_reference and scores[0] is None):
            found.unscored += 1
            continue
        high, best = scored[0] if against_reference else max(scored, key=lambda one: one[0])
        low, worst = min(scored, key=lambda one: one[0])
        if low >= high:
            found.ties += 1
            continue
        meta = {"chosen_score": f"{high:g}", "rejected_score": f"{low:g}"}
        found.pairs.append((row, Pair(f"{row.id}#pair", row.question, best, worst, meta)))
        found.chosen_scores.append(high)
        found.rejected_scores.append(low)
    return found


def _different(texts: Sequence[str]) -> list[str]:
    """The first of each group of texts that are equal after `texts.normal`."""
    first: dict[str, str] = {}
    for text in texts:
        if text.strip():
            first.setdefault(normal(text), text.strip())
    return list(first.values())


def require_pairs(chosen: Chosen, metric: str) -> None:
    """Raises DataError if there is no pair, with what became of the rows."""
    if not chosen.pairs:
        raise DataError(
            f"no pair: {chosen.described()}",
            where=metric,
            expected="texts of one prompt with different scores",
            do="give more texts per row, draw them at a higher temperature, or name a finer metric",
        )
