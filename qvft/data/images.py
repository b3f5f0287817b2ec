"""Safe decoding: any image source in, an upright RGB image or one `ImageError` out."""

from __future__ import annotations

from PIL import Image, UnidentifiedImageError

from qvft.data.quiet import quiet_pillow
from qvft.data.rgb import to_rgb
from qvft.data.sample import ImageSource
from qvft.errors import ImageError, UserError

MAX_PIXELS = 64_000_000
"""Largest width x height decoded unless told otherwise: 192 MB of RGB."""

FORMATS = frozenset(
    {
        "AVIF",
        "BMP",
        "DIB",
        "GIF",
        "ICO",
        "JPEG",
        "JPEG2000",
        "MPO",
        "PCX",
        "PNG",
        "PPM",
        "QOI",
        "SGI",
        "TGA",
        "TIFF",
        "WEBP",
    }
)
"""What is decoded. Not EPS, whose decoding starts Ghostscript: nothing that executes is loaded."""

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The first frame of an image as RGB, turned upright as its EXIF says; see `rgb.to_rgb`.

    Args:
        source: where the pixels come from.
        max_pixels: larger images (width x height) are refused before they are decoded. Pillow's
            own limit of 89 million holds beside it.

    Raises:
        ImageError: the file is missing, empty, truncated, broken, without pixels, too large or of
            a format that is not decoded. The message names the source and the cause.
    """
    return _read(source, max_pixels=max_pixels, reduced=False)


def check(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> None:
    """Decodes the whole image and drops it; JPEGs at an eighth of their size, which is cheaper.

    Raises:
        ImageError: as `decode`.
    """
    _read(source, max_pixels=max_pixels, reduced=True)


def _read(source: ImageSource, *, max_pixels: int, reduced: bool) -> Image.Image:
    try:
        with quiet_pillow(), source.open() as image:
            _require_decodable(image, name=source.name, max_pixels=max_pixels)
            if reduced:
                image.draft(image.mode, (max(image.width // 8, 1), max(image.height // 8, 1)))
            image.load()
            rgb, turn = to_rgb(image), _UPRIGHT.get(_orientation(image))
            return rgb if turn is None else rgb.transpose(turn)
    except UserError:
        raise
    except Exception as error:  # a broken file makes Pillow's decoders raise nearly anything
        raise ImageError(
            _cause(error),
            where=source.name,
            expected="an image that decodes whole",
            do="replace the file or leave it out (data.on_bad_image: skip)",
        ) from error


def _require_decodable(image: Image.Image, *, name: str, max_pixels: int) -> None:
    """Refuses by what the header says; an image drawn in memory has no format and may pass."""
    if image.format is not None and image.format not in FORMATS:
        raise ImageError(
            f"a file of format {image.format}",
            where=name,
            expected="one of " + ", ".join(sorted(FORMATS)),
            do="convert it to PNG",
        )
    if image.width < 1 or image.height < 1:
        raise ImageError(
            f"no pixels ({image.width} x {image.height})", where=name, do="replace the file"
        )
    if image.width * image.height > max_pixels:
        raise ImageError(
            f"{image.width} x {image.height} pixels",
            where=name,
            expected=f"at most {max_pixels} in all (data.max_image_pixels)",
            do="make it smaller or raise the limit",
        )


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) where the EXIF is absent or damaged."""
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # damaged EXIF raises nearly anything, and the pixels are good without it
        return 1


def _cause(error: Exception) -> str:
    """What went wrong, in words that do not repeat the path."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, IsADirectoryError):
        return "a folder"
    if isinstance(error, PermissionError):
        return "not readable (permission denied)"
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format, or broken in its header"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"refused as a decompression bomb: {error}"
    if isinstance(error, MemoryError):
        return "too large for the memory"
    return f"cannot be decoded: {str(error) or type(error).__name__}"
