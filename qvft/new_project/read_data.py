"""Reads all splits of detected data, finds their image folder, and describes the samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from qvft.data.formats.format_table import read_samples
from qvft.data.formats.path_guard import PathGuard
from qvft.data.sample import ImageFile, Sample
from qvft.errors import ImageError
from qvft.new_project.detect_format import Found

_FOLDERS = ("images", "image", "imgs", "img", "photos", "data")
_TRIED = 100  # images that are looked for in another folder
_WIDTH = 100  # characters of a line


def read_found(found: Found, options: Mapping[str, Any]) -> dict[str, list[Sample]]:
    """Samples by `train`, `val` and `test`, or `all`; raises ImageError if no image is there."""
    read: dict[str, list[Sample]] = {}
    for role, split in found.splits.items():
        samples = read_samples(found.format, str(found.path), split=split, **options)
        images = (sample.image for sample in samples)
        is_there = any(not isinstance(one, ImageFile) or one.path.exists() for one in images)
        read[role] = samples if is_there else _elsewhere(found, samples, options)
    return read


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


def described(found: Found, data: Mapping[str, Sequence[Sample]]) -> str:
    """One line: the format, its splits, and counts of images and texts."""
    samples = [sample for part in data.values() for sample in part]
    answers = Counter(one.answers[0] for sample in samples for one in sample.questions)
    captions = sum(len(sample.captions) for sample in samples)
    parts = [f"format {found.format}"]
    if splits := [f"{name} as {role}" for role, name in found.splits.items() if name]:
        parts.append("splits " + ", ".join(splits))
    parts.append(f"{len(samples):,} images")
    if captions:
        parts.append(f"{captions:,} captions")
    if answers:
        (_, count), total = answers.most_common(1)[0], answers.total()
        frequent = f"{len(answers):,} different answers, the most frequent {count / total:.0%}"
        parts.append(f"{total:,} questions ({frequent})")
    if pairs := sum(len(sample.pairs) for sample in samples):
        parts.append(f"{pairs:,} pairs")
    keys = sorted({key for sample in samples for meta in metadata_of(sample) for key in meta})
    if keys:
        parts.append("metadata " + ", ".join(keys[:9]) + (", ..." if len(keys) > 9 else ""))
    return "; ".join(parts)


def sample_lines(sample: Sample) -> Iterator[str]:
    """A sample in a few lines, each cut to the width of a screen."""
    yield _cut(f"  {sample.image.name}")
    for caption in sample.captions[:2]:
        yield _cut(f"    caption: {caption}")
    for one in sample.questions[:2]:
        yield _cut(f"    {one.text} -> {' | '.join(dict.fromkeys(one.answers))}")
    for pair in sample.pairs[:1]:
        yield _cut(
            f"    {pair.question or 'caption'} -> {pair.chosen}, rather than {pair.rejected}"
        )


def metadata_of(sample: Sample) -> list[Mapping[str, Any]]:
    """Metadata of the image, its questions and its pairs."""
    texts = [one.meta for one in sample.questions] + [one.meta for one in sample.pairs]
    return [sample.meta, *texts]


def _cut(line: str) -> str:
    line = line.replace("\n", " ")
    return line if len(line) <= _WIDTH else line[: _WIDTH - 3] + "..."
