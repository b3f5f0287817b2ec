"""Quality of pairs of a chosen and a rejected text: equal texts, contradictions, length bias."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from qvft.data.quality.texts import normal
from qvft.data.rows import Row
from qvft.data.sample import Sample

UNEVEN_FACTOR = 3
UNEVEN_TOKENS = 10
"""A pair is uneven if one text has so many times the tokens of the other, and so many more."""


@dataclass(frozen=True)
class PairQuality:
    """Findings about the pairs of a split by id, without texts, which may be patient data.

    Texts are compared after `texts.normal`.

    Attributes:
        count: number of pairs.
        equal: pairs whose two texts are equal.
        contradictions: groups of pairs of one image and question: some prefer A to B, some B to A.
        repeated: pairs that an earlier one of the image and question equals.
        reference_rejected: pairs whose rejected text is an answer of the question, or a caption of
            the image.
        uneven: pairs whose texts differ much in length, see UNEVEN_FACTOR.
        chosen_tokens, rejected_tokens: mean tokens per text.
        chosen_longer, rejected_longer: share of pairs in which that text has more tokens.
    """

    count: int
    equal: tuple[str, ...]
    contradictions: tuple[tuple[str, ...], ...]
    repeated: tuple[str, ...]
    reference_rejected: tuple[str, ...]
    uneven: tuple[str, ...]
    chosen_tokens: float
    rejected_tokens: float
    chosen_longer: float
    rejected_longer: float


def pair_quality(
    rows: Sequence[Row], content: Callable[[Sample], str], tokens: Mapping[str, int]
) -> PairQuality | None:
    """Quality of the pairs of a split, None without pairs.

    Args:
        rows: as `rows.preference_rows` makes them.
        content: equal for samples with the same image.
        tokens: token count of each text.
    """
    if not rows:
        return None
    equal, repeated, reference_rejected, uneven = [], [], [], []
    preferences: dict[tuple[str, str | None], dict[tuple[str, str], list[str]]] = {}
    lengths: list[tuple[int, int]] = []
    for row in rows:
        assert row.rejected is not None, "a row of a pair"
        chosen, rejected = normal(row.target), normal(row.rejected)
        asked = None if row.question is None else normal(row.question)
        if chosen == rejected:
            equal.append(row.id)
        else:
            known = preferences.setdefault((content(row.sample), asked), {})
            if ids := known.setdefault((chosen, rejected), []):
                repeated.append(row.id)
            ids.append(row.id)
        if rejected != chosen and rejected in _references(row.sample, asked):
            reference_rejected.append(row.id)
        lengths.append((tokens[row.target], tokens[row.rejected]))
        short, long = sorted(lengths[-1])
        if long >= UNEVEN_FACTOR * short and long - short >= UNEVEN_TOKENS:
            uneven.append(row.id)
    order = {row.id: number for number, row in enumerate(rows)}
    contradictions = [
        tuple(sorted((*ids, *known[chosen, rejected]), key=order.__getitem__))
        for known in preferences.values()
        for (rejected, chosen), ids in known.items()
        if rejected < chosen and (chosen, rejected) in known
    ]
    count = len(rows)
    return PairQuality(
        count=count,
        equal=tuple(equal),
        contradictions=tuple(contradictions),
        repeated=tuple(repeated),
        reference_rejected=tuple(reference_rejected),
        uneven=tuple(uneven),
        chosen_tokens=sum(chosen for chosen, _ in lengths) / count,
        rejected_tokens=sum(rejected for _, rejected in lengths) / count,
        chosen_longer=sum(chosen > rejected for chosen, rejected in lengths) / count,
        rejected_longer=sum(chosen < rejected for chosen, rejected in lengths) / count,
    )


def _references(sample: Sample, asked: str | None) -> set[str]:
    """The accepted texts of a sample for a normalised question, or its captions."""
    if asked is None:
        return {normal(caption) for caption in sample.captions}
    return {
        normal(answer)
        for question in sample.questions
        if normal(question.text) == asked
        for answer in question.answers
    }
