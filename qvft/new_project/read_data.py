"""Reads all splits of detected data, and finds the image folder where it is not the usual one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from qvft.data.formats.format_table import read_samples
from qvft.data.formats.path_guard import PathGuard
from qvft.data.sample import ImageFile, Sample
from qvft.errors import DataError, ImageError
from qvft.new_project.detect_format import Found
from qvft.new_project.shown_samples import metadata_of

_FOLDERS = ("images", "image", "imgs", "img", "photos", "data")
_TRIED = 100  # images that are looked for in another folder


def read_found(found: Found, options: Mapping[str, Any]) -> dict[str, list[Sample]]:
    """Samples by `train`, `val` and `test`, or under `all`.

    Raises:
        ImageError: no image is where the data says.
    """
    read: dict[str, list[Sample]] = {}
    for role, split in found.splits.items():
        samples = read_samples(found.format, str(found.path), split=split, **options)
        any_there = any(map(_is_there, samples))
        read[role] = samples if any_there else _elsewhere(found, samples, options)
    return read


def _is_there(sample: Sample) -> bool:
    return not isinstance(sample.image, ImageFile) or sample.image.path.exists()


def _elsewhere(found: Found, samples: list[Sample], options: Mapping[str, Any]) -> list[Sample]:
    """The samples with their images in another folder beside the texts."""
    usual = found.path if found.path.is_dir() else found.path.parent
    written = [one.image.path for one in samples if isinstance(one.image, ImageFile)]
    is_usual = all(usual in path.parents for path in written)
    for folder in _folders(found.path) if is_usual and "images" not in options else ():
        if any((folder / path.relative_to(usual)).exists() for path in written[:_TRIED]):
            allow = options.get("allow_paths_outside_root")
            guard = PathGuard(folder, allow_paths_outside_root=allow)
            return [
                replace(one, image=guard.file(folder / path.relative_to(usual), where=one.id))
                for one, path in zip(samples, written, strict=True)
            ]
    raise ImageError(
        "no such file",
        where=samples[0].image.name,
        expected="images where the data says",
        do="name the image folder with --images",
    )


def _folders(path: Path) -> Iterator[Path]:
    """Folders that may hold the images: those with a usual name first."""
    beside = path if path.is_dir() else path.parent
    below = sorted(one for one in beside.iterdir() if one.is_dir() and one.name[0] != ".")
    yield from sorted(below, key=lambda one: one.name.lower() not in _FOLDERS)
    yield beside.resolve().parent


def class_of(sample: Sample) -> str:
    """The sample's class, empty without one."""
    return next((str(meta["class"]) for meta in metadata_of(sample) if "class" in meta), "")


def group_of(sample: Sample, column: str) -> str:
    """Value of a metadata column, of the image or of its questions and pairs.

    Raises:
        DataError: there is none, or the image has several.
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
