"""What determines an image's pixels, in one line of text each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from qvft.data.images.decoding import MAX_PIXELS, decode
from qvft.data.sample import ImageFile, ImageSource
from qvft.errors import DataError, ImageError
from qvft.files import sha256_file

Contents = Mapping[str, str | ImageError]
"""By an image's name: its content as `content_of` gives it, or why it cannot be read."""


def contents_of(
    sources: Sequence[ImageSource], *, max_pixels: int = MAX_PIXELS, threads: int = 2
) -> dict[str, str | ImageError]:
    """The content of each image by its name; equal names are read once.

    Files are read whole, so that a changed file is another image whatever its name and time say.

    Args:
        sources: of a split, say.
        max_pixels: as in `images.decoding.decode`; only images in memory are decoded here.
        threads: that read and hash at once; below 1 counts as 1.
    """
    named = {source.name: source for source in sources}
    one = partial(_content_or_error, max_pixels=max_pixels)
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        return dict(zip(named, pool.map(one, named.values()), strict=True))


def content_of(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> str:
    """What determines the pixels: a hash of the encoded bytes, or of the pixels themselves
    where there are none.

    Raises:
        ImageError: the image cannot be read.
    """
    if isinstance(source, ImageFile):
        try:
            return f"bytes:{sha256_file(source.path)}"
        except OSError as error:
            decode(source, max_pixels=max_pixels)  # says what is wrong with the file
            raise ImageError(str(error.strerror or error), where=source.name) from error
    encoded = getattr(source, "encoded", None)  # an image inside a dataset
    if encoded is not None:
        return f"bytes:{hashlib.sha256(encoded()).hexdigest()}"
    image = decode(source, max_pixels=max_pixels)
    return f"rgb:{image.width}x{image.height}:{hashlib.sha256(image.tobytes()).hexdigest()}"


def _content_or_error(source: ImageSource, *, max_pixels: int) -> str | ImageError:
    try:
        return content_of(source, max_pixels=max_pixels)
    except ImageError as error:
        return error
    except DataError as error:
        return ImageError(error.given, where=error.where, expected=error.expected, do=error.do)
