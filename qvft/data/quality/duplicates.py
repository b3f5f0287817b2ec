"""Images that stand in the data more than once, within a split and across two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from qvft.data.images.decoding import MAX_PIXELS, decode
from qvft.data.quality.image_signature import ImageSignature
from qvft.data.quality.local_difference import closer_view
from qvft.data.quality.near_duplicates import near_pairs
from qvft.data.sample import Sample

_VIEWS = 1000
"""Images kept for a closer look: 49 MB."""


@dataclass(frozen=True)
class NearPair:
    """Two samples whose images are copies of each other, though not byte by byte.

    `difference` is that of `alignment.differences`: 0 for a perfect copy, at most 0.15.
    """

    first: str
    second: str
    difference: float


@dataclass(frozen=True)
class Overlap:
    """Images of the evaluation data that are also in the training data, by sample id.

    Attributes:
        exact: pairs (evaluation, training), one an evaluation sample; their bytes are equal.
        near: pairs (evaluation, training) of copies; those of `exact` are left out.
        id_only: another image of the training data has the same id; not in itself a fault.
    """

    exact: tuple[NearPair, ...]
    near: tuple[NearPair, ...]
    id_only: tuple[str, ...]

    @property
    def found(self) -> int:
        """How many images of the evaluation data are also in the training data."""
        return len(self.exact) + len({pair.first for pair in self.near})


@dataclass(frozen=True)
class Duplicates:
    """Copies among images, by sample id; a sample is an image with all its texts.

    Attributes:
        exact: groups of samples of one split whose images have equal bytes, by split.
        near: pairs of samples of one split whose images are copies, by split; of equal images the
            first stands for all.
        overlap: across the splits, None where there is one split only.
        groups: the contents of images that have near copies anywhere, each with the content that
            stands for all of its copies.
    """

    exact: Mapping[str, tuple[tuple[str, ...], ...]]
    near: Mapping[str, tuple[NearPair, ...]]
    overlap: Overlap | None
    groups: Mapping[str, str] = field(default_factory=dict)

    def content_of_copies(self, sample: Sample, looks: Mapping[str, ImageSignature]) -> str:
        """As `content_of_sample`, and equal for samples of near copies as well."""
        content = content_of_sample(sample, looks)
        return self.groups.get(content, content)


def duplicates(
    train: Sequence[Sample],
    evaluation: Sequence[Sample] | None,
    looks: Mapping[str, ImageSignature],
    *,
    max_pixels: int = MAX_PIXELS,
) -> Duplicates:
    """Copies within and across splits.

    Args:
        train, evaluation: the splits; None: there is no evaluation data.
        looks: by image name. An image without one (it is drawn by code) has its name for content
            and is not searched for copies that differ.
        max_pixels: as in `images.decoding.decode`; images that look alike are decoded again.
    """
    splits = {"train": train, "eval": evaluation or ()}
    holders = {name: _by_content(samples, looks) for name, samples in splits.items()}
    unique = {one.content: one for one in looks.values()}
    contents = list(unique)
    sources = {
        looks[sample.image.name].content: sample.image
        for samples in splits.values()
        for sample in samples
        if sample.image.name in looks
    }

    @lru_cache(maxsize=_VIEWS)
    def closer(place: int) -> np.ndarray:
        return closer_view(decode(sources[contents[place]], max_pixels=max_pixels))

    alike = [
        (contents[i], contents[j], difference)
        for i, j, difference in near_pairs(list(unique.values()), closer)
    ]
    exact = {
        name: tuple(tuple(ids) for ids in held.values() if len(ids) > 1)
        for name, held in holders.items()
    }
    near = {name: tuple(_pairs(alike, held, held)) for name, held in holders.items()}
    groups = _groups(alike)
    if evaluation is None:
        return Duplicates(exact, near, None, groups)
    ours, theirs = holders["eval"], holders["train"]
    both = {
        sample_id: theirs[content][0]
        for content in ours
        if content in theirs
        for sample_id in ours[content]
    }
    turned = [(second, first, difference) for first, second, difference in alike]
    across = [pair for pair in _pairs([*alike, *turned], ours, theirs) if pair.first not in both]
    train_ids = {sample.id for sample in train}
    copied = both.keys() | {pair.first for pair in across}
    overlap = Overlap(
        tuple(NearPair(s.id, both[s.id], 0.0) for s in splits["eval"] if s.id in both),
        tuple(across),
        tuple(s.id for s in splits["eval"] if s.id in train_ids and s.id not in copied),
    )
    return Duplicates(exact, near, overlap, groups)


def _groups(alike: Sequence[tuple[str, str, float]]) -> dict[str, str]:
    """For each content that stands in a pair the one that stands for all it is tied to."""
    leaders: dict[str, str] = {}
    members: dict[str, list[str]] = {}
    for first, second, _ in alike:
        one, other = (leaders.get(content, content) for content in (first, second))
        if one != other:
            members.setdefault(one, [one]).extend(members.pop(other, [other]))
            leaders.update(dict.fromkeys(members[one], one))
    return leaders


def _by_content(
    samples: Sequence[Sample], looks: Mapping[str, ImageSignature]
) -> dict[str, list[str]]:
    """Sample ids by the content of their image."""
    held: dict[str, list[str]] = {}
    for sample in samples:
        held.setdefault(content_of_sample(sample, looks), []).append(sample.id)
    return held


def content_of_sample(sample: Sample, looks: Mapping[str, ImageSignature]) -> str:
    """What samples of equal images have in common."""
    known = looks.get(sample.image.name)
    return sample.image.name if known is None else known.content


def _pairs(
    alike: Sequence[tuple[str, str, float]],
    firsts: Mapping[str, Sequence[str]],
    seconds: Mapping[str, Sequence[str]],
) -> list[NearPair]:
    """Pairs of contents as pairs of sample ids, those of which each side holds one."""
    return [
        NearPair(firsts[first][0], seconds[second][0], difference)
        for first, second, difference in alike
        if first in firsts and second in seconds
    ]
