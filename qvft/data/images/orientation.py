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
    """The transpose that turns a loaded image upright; None if it is, or without EXIF orientation.

    Pillow turns TIFFs itself on loading, and then reports 1.
    """
    try:
        return _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF can raise nearly anything; the pixels are usable without it
        return None


def settle_exif(image: Image.Image) -> None:
    """Reads a TIFF's EXIF before its pixels and drops unreadable directories.

    Pillow reads them in `load`, after the pixels, and would fail there. Other formats are
    unchanged.
    """
    if image.format != "TIFF":
        return
    with suppress(Exception):  # as in `turn`; the next call returns what was read so far
        image.getexif()
    with suppress(Exception):
        exif = image.getexif()
        for tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, ExifTags.IFD.Interop):
            try:
                exif.get_ifd(tag)
            except Exception:
                del exif[tag]
