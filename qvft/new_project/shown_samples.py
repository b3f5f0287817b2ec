"""Describes samples in lines of text: what was understood of a user's data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from qvft.data.sample import Sample
from qvft.new_project.detect_format import Found

_WIDTH = 100  # characters of a line


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
