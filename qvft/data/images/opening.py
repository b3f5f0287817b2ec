"""Opens an image source: regular files of a bounded size, known Pillow readers, DICOM, HEIC."""

from __future__ import annotations

import io
import stat
from collections.abc import Collection
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from qvft.data.images.dicom import is_dicom, read_header, read_pixels
from qvft.data.sample import ImageFile, ImageSource
from qvft.errors import ImageError

_BYTES_PER_PIXEL = 8  # four channels of 16 bits, uncompressed
_METADATA_BYTES = 16 * 2**20  # profiles, EXIF and texts


def open_source(source: ImageSource, *, formats: Collection[str], max_pixels: int) -> Image.Image:
    """The undecoded image, read by the Pillow readers of `formats` only; DICOM decoded.

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
        return _identified(source.path, formats, name=source.name, max_pixels=max_pixels)
    encoded = getattr(source, "encoded", None)
    if encoded is None:
        return source.open()
    content = encoded()
    _require_size(len(content), limit, name=source.name)
    return _identified(io.BytesIO(content), formats, name=source.name, max_pixels=max_pixels)


def require_pixels(width: int, height: int, *, name: str, max_pixels: int) -> None:
    """Raises ImageError for an image without pixels, or with more than `max_pixels`."""
    if width < 1 or height < 1:
        raise ImageError(f"no pixels ({width} x {height})", where=name, do="replace the file")
    if width * height > max_pixels:
        raise ImageError(
            f"{width} x {height} pixels",
            where=name,
            expected=f"at most {max_pixels} in all (data.max_image_pixels)",
            do="make it smaller or raise the limit",
        )


@lru_cache(maxsize=1)
def register_heic() -> bool:
    """Adds pillow-heif's reader to Pillow, once; False if it is not installed (extra `heic`)."""
    if find_spec("pillow_heif") is None:
        return False
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False)
    return True


def _identified(
    file: Path | io.BytesIO, formats: Collection[str], *, name: str, max_pixels: int
) -> Image.Image:
    Image.init()
    register_heic()
    readers = [one for one in Image.ID if one in formats]  # in Pillow's order
    try:
        return Image.open(file, formats=readers)
    except UnidentifiedImageError:
        with file.open("rb") if isinstance(file, Path) else file as stream:
            stream.seek(0)
            if not is_dicom(stream.read(132)):
                raise
            stream.seek(0)
            header = read_header(stream, name=name)
            require_pixels(header.Columns, header.Rows, name=name, max_pixels=max_pixels)
            return read_pixels(stream, header)


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
