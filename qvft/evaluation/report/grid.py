"""Chooses the items for the report's image grid."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from qvft.evaluation.rows import PredictionRow
from qvft.evaluation.scoring import main_score


def choose_items(
    rows: Sequence[PredictionRow],
    per_item: Sequence[Mapping[str, float | str]],
    grid: int,
    changed: Collection[int] = (),
) -> list[int]:
    """Indices of at most `grid` items, ascending; captions and questions get equal parts.

    Of each part a third are the lowest scores, a sixth unparseable answers, a third items that
    changed against another evaluation (where there are any), and the rest an even spread.
    """
    if len(rows) <= grid:
        return list(range(len(rows)))
    kinds = dict.fromkeys(row.kind for row in rows)
    part = grid // len(kinds)
    chosen: list[int] = []
    for kind in kinds:
        pool = [i for i, row in enumerate(rows) if row.kind == kind]
        worst = sorted(pool, key=lambda i: (main_score(per_item[i]), i))[: part // 3]
        unparseable = [i for i in pool if per_item[i].get("parsed") == "unparseable"]
        moved = _spread([i for i in pool if i in changed], part // 3)
        special = dict.fromkeys([*worst, *unparseable[: part // 6], *moved])
        rest = [i for i in pool if i not in special]
        chosen += [*special, *_spread(rest, part - len(special))]
    return sorted(chosen)


def _spread(items: Sequence[int], room: int) -> list[int]:
    count = min(room, len(items))
    return [items[k * len(items) // count] for k in range(count)]
