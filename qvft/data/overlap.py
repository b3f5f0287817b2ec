"""Which images stand in two splits at once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from qvft.data.formats.hf import RowImage
from qvft.data.sample import ImageFile, ImageSource, Sample
from qvft.files import sha256_file


@dataclass(frozen=True)
class Overlap:
    """Images of one split that are also in another, by the first one's sample ids.

    Attributes:
        content: their files hold the same bytes.
        id_only: another image of the other split has the same id; not in itself a fault.
    """

    content: tuple[str, ...]
    id_only: tuple[str, ...]


def shared_images(samples: Sequence[Sample], others: Sequence[Sample]) -> Overlap:
    """Images of `samples` that are also among `others`.

    Files are hashed only where a file of the same size is in the other split.
    """
    sizes = {_size(other.image) for other in others}
    own_sizes = {_size(sample.image) for sample in samples} & sizes
    contents = {_content(o.image) for o in others if _size(o.image) in own_sizes}
    ids = {other.id for other in others}
    same = tuple(
        sample.id
        for sample in samples
        if _size(sample.image) in own_sizes and _content(sample.image) in contents
    )
    known = set(same)
    return Overlap(same, tuple(s.id for s in samples if s.id in ids and s.id not in known))


def _size(source: ImageSource) -> int | None:
    """Bytes of a file; None of what is no file, which is compared in any case."""
    return source.path.stat().st_size if isinstance(source, ImageFile) else None


def _content(source: ImageSource) -> str:
    """What equal images have in common; a scene drawn by code is what its name says."""
    if isinstance(source, ImageFile):
        return sha256_file(source.path)
    if isinstance(source, RowImage):
        encoded = source.images[source.row][source.column]["bytes"] or b""
        return hashlib.sha256(encoded).hexdigest()
    return source.name
