"""Content hash of an image: a SHA-256 that identifies its pixels, whatever its name and time."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from qvft.cpu_threads import in_threads
from qvft.data.images.decoding import MAX_PIXELS, decode
from qvft.data.sample import ImageFile, ImageSource
from qvft.errors import DataError, ImageError
from qvft.files import sha256_file
from qvft.progress import counted

PixelIds = Mapping[str, str | ImageError]
"""`pixels_id` by image name, or the error of an unreadable image."""

_SETTLED_S = 2.0
"""A file that changed within this time is read again: timestamps of file systems are coarse."""


def encoded_hash(source: ImageSource) -> str | None:
    """Hex SHA-256 of the image file; None if there is none. Cached until the file changes.

    Raises:
        OSError: the file cannot be read.
        DataError: an image embedded in a dataset cannot be read.
    """
    if isinstance(source, ImageFile):
        return _file_hash(source.path)
    encoded = getattr(source, "encoded", None)  # an image embedded in a dataset
    return None if encoded is None else hashlib.sha256(encoded()).hexdigest()


def content_id(source: ImageSource) -> str | None:
    """`encoded_hash`, or the `content_id` of a generated image; None if there is neither."""
    return encoded_hash(source) or getattr(source, "content_id", None)


def pixels_id(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> str:
    """`bytes:` and the encoded image's hash; else `rgb:`, size and the pixels' hash.

    Pixels count, not `content_id`, since code that generates images may change.

    Raises:
        ImageError: the image cannot be read.
    """
    try:
        encoded = encoded_hash(source)
    except OSError as error:
        decode(source, max_pixels=max_pixels)  # raises the file's own error
        raise ImageError(str(error.strerror or error), where=source.name) from error
    if encoded is not None:
        return f"bytes:{encoded}"
    image = decode(source, max_pixels=max_pixels)
    return f"rgb:{image.width}x{image.height}:{hashlib.sha256(image.tobytes()).hexdigest()}"


def pixel_ids(
    sources: Sequence[ImageSource], *, max_pixels: int = MAX_PIXELS
) -> dict[str, str | ImageError]:
    """`pixels_id` of each image by name; equal names are read once."""

    def id_or_error(source: ImageSource) -> str | ImageError:
        try:
            return pixels_id(source, max_pixels=max_pixels)
        except ImageError as error:
            return error
        except DataError as error:
            return ImageError(error.given, where=error.where, expected=error.expected, do=error.do)

    named = {source.name: source for source in sources}
    ids: dict[str, str | ImageError] = {}
    with counted("hashing images", len(named)) as count:
        for name, one in zip(named, in_threads(id_or_error, named.values()), strict=True):
            ids[name] = one
            count.advance()
    return ids


def _file_hash(path: Path) -> str:
    found = path.stat()
    if time.time() - found.st_ctime < _SETTLED_S:
        return sha256_file(path)
    return _read_once(path, found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns)


@lru_cache(maxsize=1_000_000)
def _read_once(path: Path, *state: int) -> str:
    """Hash of a file in a given state; any change of content changes its `ctime`."""
    return sha256_file(path)
