"""Content hash of an image: a SHA-256 that identifies its pixels, whatever its name and time."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path

from qvft.data.images.decoding import MAX_PIXELS, decode
from qvft.data.sample import ImageFile, ImageSource
from qvft.errors import DataError, ImageError
from qvft.files import sha256_file

PixelIds = Mapping[str, str | ImageError]
"""By an image's name: what `pixels_id` gives, or why the image cannot be read."""

_SETTLED_S = 2.0
"""A file that was changed less than so many seconds ago is read again each time: a second change
may leave size and times as they are, since file systems count time in steps."""


def encoded_hash(source: ImageSource) -> str | None:
    """Hex SHA-256 of the encoded image (PNG, JPEG, ...); None where it is not kept encoded.

    A file is read whole; once per process, unless it changes.

    Raises:
        OSError: the file cannot be read.
        DataError: so of an image inside a dataset.
    """
    if isinstance(source, ImageFile):
        return _file_hash(source.path)
    encoded = getattr(source, "encoded", None)  # an image inside a dataset
    return None if encoded is None else hashlib.sha256(encoded()).hexdigest()


def content_id(source: ImageSource) -> str | None:
    """The encoded image's hash, or the `content_id` that an image made by code has of its own.

    None where neither is at hand. Raises as `encoded_hash`.
    """
    return encoded_hash(source) or getattr(source, "content_id", None)


def pixels_id(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> str:
    """`bytes:` and the encoded image's hash; `rgb:`, size and the pixels' hash where there is none.

    Code that makes images may change, so pixels count here, not an image's own `content_id`.

    Raises:
        ImageError: the image cannot be read.
    """
    try:
        encoded = encoded_hash(source)
    except OSError as error:
        decode(source, max_pixels=max_pixels)  # says what is wrong with the file
        raise ImageError(str(error.strerror or error), where=source.name) from error
    if encoded is not None:
        return f"bytes:{encoded}"
    image = decode(source, max_pixels=max_pixels)
    return f"rgb:{image.width}x{image.height}:{hashlib.sha256(image.tobytes()).hexdigest()}"


def pixel_ids(
    sources: Sequence[ImageSource], *, max_pixels: int = MAX_PIXELS, threads: int = 2
) -> dict[str, str | ImageError]:
    """The `pixels_id` of each image by its name; equal names are read once.

    Args:
        sources: e.g. the images of a split.
        max_pixels: as in `images.decoding.decode`; only images that are not encoded are decoded.
        threads: that read and hash at once; below 1 counts as 1.
    """
    named = {source.name: source for source in sources}
    one = partial(_id_or_error, max_pixels=max_pixels)
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        return dict(zip(named, pool.map(one, named.values()), strict=True))


def _id_or_error(source: ImageSource, *, max_pixels: int) -> str | ImageError:
    try:
        return pixels_id(source, max_pixels=max_pixels)
    except ImageError as error:
        return error
    except DataError as error:
        return ImageError(error.given, where=error.where, expected=error.expected, do=error.do)


def _file_hash(path: Path) -> str:
    found = path.stat()
    if time.time() - found.st_ctime < _SETTLED_S:
        return sha256_file(path)
    return _read_once(path, found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns)


@lru_cache(maxsize=100_000)
def _read_once(path: Path, *state: int) -> str:
    """The hash of a file in a state; whatever changes a file's content changes its `ctime`."""
    return sha256_file(path)
