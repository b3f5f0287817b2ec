"""EXIF orientation: turns an image upright, even if its EXIF is damaged."""

from __future__ import annotations

from contextlib import suppress

from PIL import ExifTags, Image

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def turn(image: Image.Image) -> Image.Transpose | None:
    """What turns a loaded image upright; None if it is, or if its EXIF does not say.

    Pillow turns TIFFs itself while it loads them, and says 1 afterwards.
    """
    try:
        return _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF raises nearly anything, and the pixels are good without it
        return None


def settle_exif(image: Image.Image) -> None:
    """Reads a TIFF's EXIF ahead of its pixels and drops the directories that cannot be read.

    Pillow reads them in `load`, after the pixels, and would lose the pixels with them. Other
    formats are left alone.
    """
    if image.format != "TIFF":
        return
    with suppress(Exception):  # as in `turn`; the next call returns what was read until then
        image.getexif()
    with suppress(Exception):
        exif = image.getexif()
        for tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, ExifTags.IFD.Interop):
            try:
                exif.get_ifd(tag)
            except Exception:
                del exif[tag]
