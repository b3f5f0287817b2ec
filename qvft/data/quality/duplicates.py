"""Deduplication: duplicate images within a split and across two (data leakage), exact and near."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from qvft.data.images.decoding import MAX_PIXELS, decode
from qvft.data.quality.near_duplicates import ImageSignature, near_pairs
from qvft.data.sample import Sample


@dataclass(frozen=True)
class NearPair:
    """Two samples with duplicate images; `difference` is that of `near_duplicates.near_pairs`."""

    first: str
    second: str
    difference: float


@dataclass(frozen=True)
class Overlap:
    """Data leakage: images of the evaluation data that are also in the training data, by sample id.

    Attributes:
        exact, near: pairs (evaluation, training): equal bytes, and near duplicates beside these.
        id_only: ids that belong to a different image in the training data; not an error in itself.
    """

    exact: tuple[NearPair, ...]
    near: tuple[NearPair, ...]
    id_only: tuple[str, ...]


@dataclass(frozen=True)
class Duplicates:
    """Duplicate images, by sample id; a sample is an image with all its texts.

    Attributes:
        exact: groups of samples with byte-identical images, by split.
        near: pairs of near duplicates, by split; only the first of byte-identical images.
        overlap: duplicates across splits, None with a single split.
        groups: by image name, the content of the first image of its duplicates.
    """

    exact: Mapping[str, tuple[tuple[str, ...], ...]]
    near: Mapping[str, tuple[NearPair, ...]]
    overlap: Overlap | None
    groups: Mapping[str, str]

    def group(self, sample: Sample) -> str:
        """Equal for samples whose images are exact or near copies."""
        return self.groups[sample.image.name]


def duplicates(
    train: Sequence[Sample],
    evaluation: Sequence[Sample] | None,
    signatures: Mapping[str, ImageSignature],
    *,
    max_pixels: int = MAX_PIXELS,
) -> Duplicates:
    """Duplicates within and across splits.

    Args:
        signatures: by image name. An image without one uses its name as content and is not searched
            for near duplicates.
        max_pixels: as in `images.decoding.decode`; candidates are decoded again.
    """
    splits = {"train": train, "eval": evaluation or ()}
    everything = [*train, *splits["eval"]]
    names = [sample.image.name for sample in everything]
    contents = {name: signatures[name].content if name in signatures else name for name in names}
    samples = {contents[sample.image.name]: sample for sample in reversed(everything)}
    unique = list({one.content: one for one in signatures.values()}.values())

    def decoded(place: int) -> Image.Image:
        return decode(samples[unique[place].content].image, max_pixels=max_pixels)

    near = near_pairs(unique, decoded)
    alike = [(unique[i].content, unique[j].content, difference) for i, j, difference in near]
    groups = _groups(alike)
    ids_of: dict[str, dict[str, list[str]]] = {name: {} for name in splits}
    for which, split in splits.items():
        for sample in split:
            ids_of[which].setdefault(contents[sample.image.name], []).append(sample.id)
    return Duplicates(
        exact={
            which: tuple(tuple(ids) for ids in by_content.values() if len(ids) > 1)
            for which, by_content in ids_of.items()
        },
        near={which: _pairs(alike, one, one) for which, one in ids_of.items()},
        overlap=None if evaluation is None else _overlap(evaluation, ids_of, alike),
        groups={name: groups.get(content, content) for name, content in contents.items()},
    )


def _overlap(
    evaluation: Sequence[Sample],
    ids_of: Mapping[str, Mapping[str, Sequence[str]]],
    alike: Sequence[tuple[str, str, float]],
) -> Overlap:
    """Duplicates between `evaluation` and the training data; `ids_of` has sample ids by content."""
    ours, theirs = ids_of["eval"], ids_of["train"]
    both = {i: theirs[content][0] for content in ours if content in theirs for i in ours[content]}
    swapped = [(second, first, difference) for first, second, difference in alike]
    across = [pair for pair in _pairs([*alike, *swapped], ours, theirs) if pair.first not in both]
    train_ids = {name for ids in theirs.values() for name in ids}
    copied = both.keys() | {pair.first for pair in across}
    ids = [sample.id for sample in evaluation]
    return Overlap(
        exact=tuple(NearPair(name, both[name], 0.0) for name in ids if name in both),
        near=tuple(across),
        id_only=tuple(name for name in ids if name in train_ids and name not in copied),
    )


def _groups(alike: Sequence[tuple[str, str, float]]) -> dict[str, str]:
    """By content, the first content of its group of near duplicates."""
    leaders: dict[str, str] = {}
    members: dict[str, list[str]] = {}
    for first, second, _ in alike:
        one, other = (leaders.get(content, content) for content in (first, second))
        if one != other:
            members.setdefault(one, [one]).extend(members.pop(other, [other]))
            leaders.update(dict.fromkeys(members[one], one))
    return leaders


def _pairs(
    alike: Sequence[tuple[str, str, float]],
    firsts: Mapping[str, Sequence[str]],
    seconds: Mapping[str, Sequence[str]],
) -> tuple[NearPair, ...]:
    """Pairs of contents as pairs of sample ids."""
    return tuple(
        NearPair(firsts[first][0], seconds[second][0], difference)
        for first, second, difference in alike
        if first in firsts and second in seconds
    )
