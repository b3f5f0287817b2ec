"""Images that stand in the data more than once, within a split and across two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qvft.data.quality.look import Look
from qvft.data.quality.near import near_pairs
from qvft.data.sample import Sample


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
        exact: their bytes are equal.
        near: pairs (evaluation, training) of copies; those of `exact` are left out.
        id_only: another image of the training data has the same id; not in itself a fault.
    """

    exact: tuple[str, ...]
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
    """

    exact: Mapping[str, tuple[tuple[str, ...], ...]]
    near: Mapping[str, tuple[NearPair, ...]]
    overlap: Overlap | None


def duplicates(
    train: Sequence[Sample], evaluation: Sequence[Sample] | None, looks: Mapping[str, Look]
) -> Duplicates:
    """Copies within and across splits.

    Args:
        train, evaluation: the splits; None: there is no evaluation data.
        looks: by image name. An image without one (it is drawn by code) has its name for content
            and is not searched for copies that differ.
    """
    splits = {"train": train, "eval": evaluation or ()}
    holders = {name: _by_content(samples, looks) for name, samples in splits.items()}
    unique = {one.content: one for one in looks.values()}
    contents = list(unique)
    alike = [
        (contents[i], contents[j], difference)
        for i, j, difference in near_pairs(list(unique.values()))
    ]
    exact = {
        name: tuple(tuple(ids) for ids in held.values() if len(ids) > 1)
        for name, held in holders.items()
    }
    near = {name: tuple(_pairs(alike, held, held)) for name, held in holders.items()}
    if evaluation is None:
        return Duplicates(exact, near, None)
    ours, theirs = holders["eval"], holders["train"]
    both = {sample_id for content in ours if content in theirs for sample_id in ours[content]}
    turned = [(second, first, difference) for first, second, difference in alike]
    across = [pair for pair in _pairs([*alike, *turned], ours, theirs) if pair.first not in both]
    train_ids = {sample.id for sample in train}
    copied = both | {pair.first for pair in across}
    overlap = Overlap(
        tuple(sample.id for sample in splits["eval"] if sample.id in both),
        tuple(across),
        tuple(s.id for s in splits["eval"] if s.id in train_ids and s.id not in copied),
    )
    return Duplicates(exact, near, overlap)


def _by_content(samples: Sequence[Sample], looks: Mapping[str, Look]) -> dict[str, list[str]]:
    """Sample ids by the content of their image."""
    held: dict[str, list[str]] = {}
    for sample in samples:
        held.setdefault(content_of_sample(sample, looks), []).append(sample.id)
    return held


def content_of_sample(sample: Sample, looks: Mapping[str, Look]) -> str:
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
