"""A dataset format: its name, its reader and what the reader takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from qvft.data.sample import Sample
from qvft.data.stream import Stream

IMAGE_OPTIONS = ("split", "images", "allow_paths_outside_root")
"""Options of most formats of files with an image folder."""


@dataclass(frozen=True)
class Format:
    """A row of the table of formats.

    Attributes:
        name: value of `data.train.format`; a format of another package is given by its dotted name.
        description: short description.
        read: `read(path, **options)` yields the samples of a split in the source's order, without
            decoding images; raises DataError.
        options: keyword arguments of `read`; those that a recipe does not set are not passed. Of
            `split`; `images`, the image folder, if separate; `questions` and `annotations`, files
            of VQA v2; `columns`, column names of `hf` and `csv`; `class_texts`, texts of
            classes; `allow_paths_outside_root`: whether images may lie outside the image folder
            (that of `path`, or `images`), see `PathGuard`.
        stream: `stream(path, **options)` opens the data for streaming; None: not supported.
    """

    name: str
    description: str
    read: Callable[..., Iterator[Sample]]
    options: tuple[str, ...] = ()
    stream: Callable[..., Stream] | None = None
