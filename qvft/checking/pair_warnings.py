"""Warnings of `qvft check` about pairs of a chosen and a rejected text."""

from __future__ import annotations

from qvft.data.quality.pair_quality import UNEVEN_FACTOR, UNEVEN_TOKENS, PairQuality

LISTED = 3
FEWEST = 10
"""With fewer pairs, lengths that differ may be chance."""
BIASED_SHARE = 0.7
BIASED_RATIO = 1.25


def pair_warnings(name: str, pairs: PairQuality) -> list[str]:
    """Warnings about the pairs of a split."""
    found = []
    for key, meaning, do in (
        ("equal", "texts are equal but for case, blanks or punctuation", "remove them"),
        ("repeated", "an earlier pair is the same", "remove them, unless they shall count twice"),
        (
            "reference_rejected",
            "the rejected text is a reference of the image",
            "correct pair or reference",
        ),
        (
            "uneven",
            f"one text is {UNEVEN_FACTOR} times as long as the other, by {UNEVEN_TOKENS} tokens or "
            "more",
            "look at them: length alone may be what is learned",
        ),
    ):
        if ids := getattr(pairs, key):
            first = ", ".join(ids[:LISTED])
            count = f"{len(ids):,} pair{'s' * (len(ids) > 1)}"
            found.append(f"{name}: {count}: {meaning}, first {first}; {do} (all in --json)")
    if groups := pairs.contradictions:
        first = "; ".join(", ".join(group) for group in groups[:LISTED])
        found.append(
            f"{name}: groups of pairs that prefer A to B and B to A for one image and question: "
            f"{len(groups):,}, first {first}; decide on one (all in --json)"
        )
    return [*found, *_length_bias(name, pairs)]


def _length_bias(name: str, pairs: PairQuality) -> list[str]:
    """A warning if chosen texts are mostly longer than rejected ones, or mostly shorter."""
    longer, shorter = pairs.chosen_longer, pairs.rejected_longer
    short, long = sorted((pairs.chosen_tokens, pairs.rejected_tokens))
    is_biased = max(longer, shorter) > BIASED_SHARE or long > BIASED_RATIO * short
    if pairs.count < FEWEST or not is_biased:
        return []
    return [
        f"{name}: length bias: chosen texts have {pairs.chosen_tokens:.1f} tokens on average, "
        f"rejected ones {pairs.rejected_tokens:.1f}; the chosen text is longer in {longer:.0%} "
        f"of pairs, shorter in {shorter:.0%}. A model may learn length alone: balance the pairs, "
        "or compare lengths before and after"
    ]
