"""Signs that a reward is exploited: bad endings, repetition (distinct-n), texts without a stop."""

from __future__ import annotations

from collections.abc import Sequence

from qvft.inference.sampled import Sampled

BAD_ENDINGS = frozenset((
    "a", "an", "the", "in", "for", "at", "of", "with", "before", "after", "on", "upon", "near",
    "to", "is", "are", "am",
))  # fmt: skip
"""Last words of unfinished captions.

Source: github.com/ruotianluo/self-critical.pytorch, captioning/utils/eval_utils.py.
"""


def degeneration(texts: Sequence[Sampled]) -> dict[str, tuple[float, int]]:
    """Sum and count of each sign over texts: their quotient is the mean.

    `mean_length` is in tokens with the stop token, `clipped_ratio` the share without it (both
    trl's names), `bad_endings` the share that ends in one of `BAD_ENDINGS`, `distinct_2` the share
    of different ones among all bigrams (Li et al. 2016, arXiv 1510.03055).
    """
    words = [text.text.lower().split() for text in texts]
    bigrams = [pair for one in words for pair in zip(one, one[1:], strict=False)]
    count = len(texts)
    bad = sum(bool(one) and one[-1].rstrip(".") in BAD_ENDINGS for one in words)
    return {
        "completions/mean_length": (sum(len(text.ids) for text in texts), count),
        "completions/clipped_ratio": (sum(not text.stopped for text in texts), count),
        "completions/bad_endings": (bad, count),
        "completions/distinct_2": (len(set(bigrams)), len(bigrams)),
    }
