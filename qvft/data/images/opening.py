"""Opens an image source: regular files of a bounded size, only with known Pillow readers."""

from __future__ import annotations

import io
import stat
from collections.abc import Collection

from PIL import Image

from qvft.data.sample import ImageFile, ImageSource
from qvft.errors import ImageError

_BYTES_PER_PIXEL = 8  # four channels of 16 bits, uncompressed
_METADATA_BYTES = 16 * 2**20  # profiles, EXIF and texts


def open_source(source: ImageSource, *, formats: Collection[str], max_pixels: int) -> Image.Image:
    """The undecoded image, read by the Pillow readers of `formats` only.

    Some of Pillow's readers load a whole file on opening, and others block forever on a pipe.

    Raises:
        ImageError: a device, a pipe, or a file of more than 8 bytes per pixel of `max_pixels`, plus
            16 MiB.
    """
    limit = _BYTES_PER_PIXEL * max_pixels + _METADATA_BYTES
    if isinstance(source, ImageFile):
        status = source.path.stat()
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise ImageError("a device or a pipe", where=source.name, expected="a file")
        _require_size(status.st_size, limit, name=source.name)
        return _identified(source.path, formats)
    encoded = getattr(source, "encoded", None)
    if encoded is None:
        return source.open()
    content = encoded()
    _require_size(len(content), limit, name=source.name)
    return _identified(io.BytesIO(content), formats)


def _identified(file: object, formats: Collection[str]) -> Image.Image:
    Image.init()
    readers = [name for name in Image.ID if name in formats]  # in Pillow's order
    return Image.open(file, formats=readers)  # type: ignore[arg-type]


def foreign_format(head: bytes, formats: Collection[str]) -> str | None:
    """The format that Pillow would detect by the first 16 bytes, if it is none of `formats`."""
    Image.init()
    for name, (_, accepts) in Image.OPEN.items():
        if name not in formats and accepts is not None and accepts(head[:16]) is True:
            return name
    return None


def _require_size(size: int, limit: int, *, name: str) -> None:
    if size > limit:
        raise ImageError(
            f"a file of {size:,} bytes",
            where=name,
            expected=f"at most {limit:,} (8 for each of data.max_image_pixels, and 16 MiB)",
            do="make it smaller or raise the limit",
        )
