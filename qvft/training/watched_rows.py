"""Evaluation rows while training: a seeded sample of whole images, bounded by `train.eval_limit`,
so that an evaluation every few steps cannot take most of the time.
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
    """Half of the texts that are trained between two evaluations.

    A text takes about a third of its time in training, where it also goes backward; so an
    evaluation takes about a sixth of the time.
    """
    return max(LEAST, int(texts_between / 2))


def watched_rows(rows: Sequence[Row], limit: int, seed: int) -> list[Row]:
    """At most `limit` rows (0: all), those of whole images in an order drawn with `seed`; as they
    are ordered in `rows`. The first rows if no image has few enough.
    """
    if not limit or len(rows) <= limit:
        return list(rows)
    counts = Counter(row.sample.id for row in rows)
    chosen: set[str] = set()
    for image in random.Random(seed).sample(list(counts), len(counts)):
        if counts[image] <= limit:
            chosen.add(image)
            limit -= counts[image]
    return [row for row in rows if row.sample.id in chosen] or list(rows[:limit])
