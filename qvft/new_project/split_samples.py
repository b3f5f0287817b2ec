"""Splits samples into train, val and test by image or by group, reproducibly."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from qvft.data.sample import ImageFile, Sample
from qvft.errors import DataError
from qvft.files import sha256_file
from qvft.new_project.read_data import metadata_of

ROLES = ("train", "val", "test")


def split_data(
    data: Mapping[str, list[Sample]],
    shares: Mapping[str, float],
    *,
    seed: int,
    column: str | None,
    where: str,
) -> dict[str, list[Sample]]:
    """Train, val and test of data as `read_found` gives it.

    Parts that the data has stay; the others are taken from its training data. A class has its share
    in each.

    Args:
        column: metadata whose values stay together; None: images with equal files.

    Raises:
        DataError: no training data, nothing to train on, or a part would be empty.
    """
    rest = data.get("all") or data.get("train")
    if rest is None:
        raise DataError("no training split", where=where, expected="one called train")
    if not any(one.captions or one.questions for one in rest):
        raise DataError(
            "no captions and no questions",
            where=where,
            expected="texts to train on",
            do="for pairs copy a recipe of preference tuning",
        )
    own = {role: data[role] for role in ROLES[1:] if role in data}
    needed = {role: share for role, share in shares.items() if role not in own and share > 0}
    if len(needed) == 1:
        return {"train": rest, **own}
    total = sum(needed.values())
    parts = split_samples(
        rest,
        {role: share / total for role, share in needed.items()},
        seed=seed,
        group=image_content if column is None else partial(value_of, column=column),
        stratum=class_of,
    )
    return {role: (parts | own)[role] for role in ROLES if role in parts or role in own}


def split_samples(
    samples: Sequence[Sample],
    shares: Mapping[str, float],
    *,
    seed: int,
    group: Callable[[Sample], str],
    stratum: Callable[[Sample], str],
) -> dict[str, list[Sample]]:
    """The samples of each part in their order.

    Groups are shuffled, then sorted by stratum; each goes to the part that lacks most of its share
    of the samples so far. So no group is in two parts, and each stratum has about the shares.

    Args:
        shares: the share of each part, together 1.
    """
    groups: dict[str, list[int]] = {}
    for index, sample in enumerate(samples):
        groups.setdefault(group(sample), []).append(index)
    order = list(groups.values())
    random.Random(seed).shuffle(order)
    order.sort(key=lambda members: stratum(samples[members[0]]))
    parts: dict[str, list[int]] = {name: [] for name, share in shares.items() if share > 0}
    seen = 0
    for members in order:
        seen += len(members)
        lacking = max(parts, key=lambda name: shares[name] * seen - len(parts[name]))
        parts[lacking] += members
    for name, members in parts.items():
        if not members:
            raise DataError(
                f"{len(samples)} images in {len(groups)} groups",
                expected=f"enough for all of {', '.join(parts)}; {name} would be empty",
                do="add images, or change the shares with --split",
            )
    return {name: [samples[i] for i in sorted(members)] for name, members in parts.items()}


def image_content(sample: Sample) -> str:
    """Equal for images whose files are equal, byte by byte, so that copies stay together."""
    if isinstance(sample.image, ImageFile) and Path(sample.image.path).is_file():
        return sha256_file(sample.image.path)
    return sample.image.name


def class_of(sample: Sample) -> str:
    """The sample's class, empty without one."""
    return next((str(meta["class"]) for meta in metadata_of(sample) if "class" in meta), "")


def value_of(sample: Sample, column: str) -> str:
    """Value of a metadata column, of the image or of its questions and pairs.

    Raises DataError if there is none, or the image has several.
    """
    own = metadata_of(sample)
    values = {str(meta[column]) for meta in own if column in meta}
    if len(values) == 1:
        return values.pop()
    known = sorted({key for meta in own for key in meta})
    raise DataError(
        f"{'several values' if values else 'no value'} of `{column}`",
        where=f"sample {sample.id}",
        expected="one value per image" + (f"; this image has {', '.join(known)}" if known else ""),
        do="name another column with --group, or leave it out to split by image",
    )
