"""Evaluation rows while training: a seeded sample of whole images, bounded by `train.eval_limit`.

So an evaluation every few steps cannot take most of the time.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from qvft.data.rows import Row

LEAST = 256
"""Fewest texts of the default limit: of 256 answers, half of them right, the 95 % interval is 6
points wide on either side."""


def default_limit(texts_between: float) -> int:
    """The limit where the recipe sets none.

    A text takes about a third of its time in training, where it also goes backward; so half as many
    as are trained between two evaluations take about a sixth of that time.

    Args:
        texts_between: texts trained between two evaluations, by all processes.
    """
    return max(LEAST, int(texts_between / 2))


def watched_rows(rows: Sequence[Row], limit: int, seed: int) -> list[Row]:
    """At most `limit` rows, those of whole images in an order drawn with `seed`; as they are
    ordered in `rows`. 0: all rows. If no image is small enough, the first rows.
    """
    if not limit or len(rows) <= limit:
        return list(rows)
    counts = Counter(row.sample.id for row in rows)
    images = list(counts)
    random.Random(seed).shuffle(images)
    chosen: set[str] = set()
    left = limit
    for image in images:
        if counts[image] <= left:
            chosen.add(image)
            left -= counts[image]
    return [row for row in rows if row.sample.id in chosen] or list(rows[:limit])
