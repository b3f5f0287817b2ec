"""Chooses the items for the report's image grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qvft.evaluation.rows import PredictionRow
from qvft.evaluation.scoring import main_score

_MOVES = ("worse", "better", "same")


def choose_items(
    rows: Sequence[PredictionRow],
    per_item: Sequence[Mapping[str, float | str]],
    grid: int,
    moves: Mapping[int, str] | None = None,
) -> list[int]:
    """Indices of at most `grid` items, ascending; captions and questions get equal parts.

    Of each part a third are the lowest scores, a sixth unparseable answers and a third items that
    changed against another evaluation (where there are any), and the rest an even spread.
    """
    if len(rows) <= grid:
        return list(range(len(rows)))
    kinds = dict.fromkeys(row.kind for row in rows)
    chosen: list[int] = []
    for kind in kinds:
        pool = [i for i, row in enumerate(rows) if row.kind == kind]
        chosen += _choose(pool, per_item, grid // len(kinds), moves or {})
    return sorted(chosen)


def _choose(
    pool: Sequence[int],
    per_item: Sequence[Mapping[str, float | str]],
    part: int,
    moves: Mapping[int, str],
) -> list[int]:
    worst = sorted(pool, key=lambda i: (main_score(per_item[i]), i))[: part // 3]
    unparseable = [i for i in pool if per_item[i].get("parsed") == "unparseable"]
    special = dict.fromkeys([*worst, *unparseable[: part // 6]])
    special |= dict.fromkeys(_changed_of(pool, moves, part // 3))
    rest = [i for i in pool if i not in special]
    return [*special, *_spread(rest, part - len(special))]


def _changed_of(pool: Sequence[int], moves: Mapping[int, str], room: int) -> list[int]:
    """At most `room` changed items, worse and better ones in turn, spread over the data."""
    worse, better, same = ([i for i in pool if moves.get(i) == m] for m in _MOVES)
    half = room // 2
    taken = [*_spread(worse, max(half, room - len(better)))]
    taken += _spread(better, room - len(taken))
    return [*taken, *_spread(same, room - len(taken))]


def _spread(items: Sequence[int], room: int) -> list[int]:
    count = min(room, len(items))
    return [items[k * len(items) // count] for k in range(count)]
