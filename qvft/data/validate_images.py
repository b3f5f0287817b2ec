"""Validates every image of a split before training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from qvft.cpu_threads import in_threads
from qvft.data.images.decoding import ABSENT, MAX_PIXELS, check, decode
from qvft.data.images.suppress_warnings import quiet_pillow
from qvft.data.quality.near_duplicates import DECODED_SIDE, ImageSignature, sign
from qvft.data.sample import ImageSource, Sample
from qvft.errors import ImageError
from qvft.progress import counted

T = TypeVar("T")


@dataclass(frozen=True)
class Skipped:
    """A skipped sample: its id, the reason, its image's path, what was expected, what to do."""

    id: str
    reason: str
    path: str = ""
    expected: str | None = None
    do: str | None = None


def validate_images(
    samples: Sequence[Sample],
    *,
    on_error: Literal["error", "skip"],
    max_pixels: int = MAX_PIXELS,
) -> tuple[list[Sample], list[Skipped]]:
    """The samples whose images decode, in order, and the skipped ones.

    Images of the same name are decoded once, in threads: Pillow's decoders release the GIL. With
    `on_error` = `error` an unusable image is an ImageError (the first is named, all are counted),
    with `skip` its samples are skipped.
    """
    _, bad = _each_image(samples, partial(check, max_pixels=max_pixels))
    if bad and on_error == "error":
        first = next(iter(bad.values()))
        count = len({sample.image.name for sample in samples})
        absent = len(bad) == count and all(one.given == ABSENT for one in bad.values())
        raise ImageError(
            f"{first.given} ({len(bad)} of {count} images are unusable)",
            where=str(Path(first.where or "").absolute()) if absent else first.where,
            expected="images where the data says" if absent else first.expected,
            do="check the paths in the data, and the image folder (`images` beside `path`)"
            if absent
            else first.do,
        ) from first
    return _partition(samples, bad)


def validate_and_sign(
    samples: Sequence[Sample], *, max_pixels: int = MAX_PIXELS
) -> tuple[list[Sample], list[Skipped], dict[str, ImageSignature]]:
    """As `validate_images` with `skip`, plus each image's signature by name, from one decoding."""

    def signed(source: ImageSource) -> ImageSignature:
        return sign(source, decode(source, max_pixels=max_pixels, least_side=DECODED_SIDE))

    signatures, bad = _each_image(samples, signed)
    return *_partition(samples, bad), signatures


def _each_image(
    samples: Sequence[Sample], work: Callable[[ImageSource], T]
) -> tuple[dict[str, T], dict[str, ImageError]]:
    """Results of `work`, and errors, by image name."""

    def attempt(source: ImageSource) -> T | ImageError:
        try:
            return work(source)
        except ImageError as error:
            return error

    sources = {sample.image.name: sample.image for sample in samples}
    done: dict[str, T] = {}
    bad: dict[str, ImageError] = {}
    with quiet_pillow(), counted("checking images", len(sources)) as count:
        for name, found in zip(sources, in_threads(attempt, sources.values()), strict=True):
            count.advance()
            if isinstance(found, ImageError):
                bad[name] = found
            else:
                done[name] = found
    return done, bad


def _partition(
    samples: Sequence[Sample], bad: Mapping[str, ImageError]
) -> tuple[list[Sample], list[Skipped]]:
    kept, skipped = [], []
    for sample in samples:
        name = sample.image.name
        if (error := bad.get(name)) is None:
            kept.append(sample)
        else:
            skipped.append(Skipped(sample.id, error.given, name, error.expected, error.do))
    return kept, skipped
