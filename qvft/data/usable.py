"""Checking every image of a split before any of them is needed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal

from qvft.data.images import MAX_PIXELS, check
from qvft.data.sample import ImageSource, Sample
from qvft.errors import ImageError


@dataclass(frozen=True)
class Skipped:
    """A sample that was left out: its id, its image's name, and why the image is unusable."""

    id: str
    name: str
    reason: str


def usable(
    samples: Sequence[Sample],
    *,
    on_error: Literal["error", "skip"],
    max_pixels: int = MAX_PIXELS,
    workers: int = 2,
) -> tuple[list[Sample], list[Skipped]]:
    """The samples whose images decode, in order, and those left out.

    Images of the same name are decoded once. Threads do the work: Pillow's decoders release the
    interpreter lock.

    Args:
        samples: a split.
        on_error: `error` stops at unusable images, `skip` leaves their samples out, all of them
            if need be.
        max_pixels: as in `images.decode`.
        workers: threads; below 1 counts as 1.

    Raises:
        ImageError: with `error`, some image is unusable (the first is named, all are counted).
    """
    sources = {sample.image.name: sample.image for sample in samples}
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        problems = dict(
            zip(
                sources,
                pool.map(partial(_problem, max_pixels=max_pixels), sources.values()),
                strict=True,
            )
        )
    bad = {name: problem for name, problem in problems.items() if problem is not None}
    if bad and on_error == "error":
        first = next(iter(bad.values()))
        raise ImageError(
            f"{first.given} ({len(bad)} of {len(sources)} images are unusable)",
            where=first.where,
            expected=first.expected,
            do=first.do,
        ) from first
    kept = [sample for sample in samples if sample.image.name not in bad]
    skipped = [
        Skipped(sample.id, sample.image.name, bad[sample.image.name].given)
        for sample in samples
        if sample.image.name in bad
    ]
    return kept, skipped


def _problem(source: ImageSource, *, max_pixels: int) -> ImageError | None:
    try:
        check(source, max_pixels=max_pixels)
    except ImageError as error:
        return error
    return None
