"""Decodes any image source safely: an upright RGB image, or one `ImageError`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path, PurePath

from PIL import Image, UnidentifiedImageError

from qvft.data.images.opening import foreign_format, open_source, register_heic, require_pixels
from qvft.data.images.orientation import settle_exif, turn
from qvft.data.images.rgb import to_rgb
from qvft.data.images.suppress_warnings import quiet_libtiff, quiet_pillow
from qvft.data.images.transparency import drawn_box, settle_key, white_outside
from qvft.data.sample import ImageFile, ImageSource
from qvft.errors import ImageError, UserError

MAX_PIXELS = 64_000_000
"""Default maximum of width x height: 192 MB of RGB."""

ABSENT = "no such file"
"""Error text for a missing image."""

FORMATS = frozenset(
    ("AVIF", "BMP", "DIB", "GIF", "HEIF", "ICO", "JPEG", "JPEG2000", "MPO")
    + ("PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP")
)
"""Decoded formats, beside DICOM; HEIF (HEIC) only with pillow-heif. Not EPS, whose decoding runs
Ghostscript, nor formats rarely used in datasets (PSD, DDS), to limit the attack surface."""

_CONVERT = {
    ".dcm": "DICOM",
    ".dicom": "DICOM",
    ".heic": "HEIC",
    ".heif": "HEIC",
    ".hif": "HEIC",
    ".nii": "NIfTI",
    ".pdf": "PDF",
    ".svg": "SVG",
}
"""Probable file type by extension, for files that are not images."""

_HEIC_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"mif1", b"msf1"})


def decode(
    source: ImageSource, *, max_pixels: int = MAX_PIXELS, least_side: int | None = None
) -> Image.Image:
    """The first frame of an image as RGB, with EXIF orientation applied; see `rgb.to_rgb`.

    Args:
        source: the image source.
        max_pixels: larger images (width x height) are refused before decoding, icons right after,
            since Pillow decodes them on opening. Pillow's own limit of 89 million also applies.
            Files over 8 bytes per pixel plus 16 MiB are not opened.
        least_side: JPEGs may be decoded at a half, a quarter or an eighth of their size, both sides
            of at least this many pixels, which is cheaper and finds the same damage.

    Raises:
        ImageError: the file is missing, empty, truncated, broken, without pixels, too large or of
            another format. The message names source and cause.
    """
    try:
        with quiet_pillow(), open_source(source, formats=FORMATS, max_pixels=max_pixels) as image:
            _require_decodable(image, name=source.name, max_pixels=max_pixels)
            if least_side is not None:
                image.draft(image.mode, (least_side, least_side))
            return _upright_rgb(image)
    except UserError:
        raise
    except Exception as error:  # on a broken file, Pillow's decoders can raise nearly anything
        if isinstance(error, UnidentifiedImageError) and (known := _other_file(source)):
            raise known from error
        raise ImageError(
            _cause(error),
            where=source.name,
            expected="an image that decodes without errors",
            do=_other_case(source.name) or "replace the file, or set data.on_bad_image: skip",
        ) from error


def check(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> None:
    """Decodes the whole image, as small as possible, and discards it; raises as `decode`."""
    decode(source, max_pixels=max_pixels, least_side=1)


def _other_file(source: ImageSource) -> ImageError | None:
    """Error for a file that is empty or of another type; None if its type is not known."""
    if isinstance(source, ImageFile) and not source.path.stat().st_size:
        return ImageError("an empty file", where=source.name, do="replace the file")
    head = _head(source)
    kind = _kind_by_bytes(head) or _CONVERT.get(PurePath(source.name).suffix.lower())
    if kind:
        return _not_decoded(f"probably a {kind} file", name=source.name)
    foreign = foreign_format(head, FORMATS)
    return _not_decoded(f"a file of format {foreign}", name=source.name) if foreign else None


def _kind_by_bytes(head: bytes) -> str | None:
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS:
        return "HEIC"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "HTML"
    return "PDF" if head.startswith(b"%PDF") else None


def _head(source: ImageSource) -> bytes:
    """The first bytes of a source's file; empty if there is none or it is unreadable."""
    if not isinstance(source, ImageFile) or not source.path.is_file():
        return b""
    try:
        with source.path.open("rb") as file:
            return file.read(256)
    except OSError:
        return b""


def _other_case(name: str) -> str | None:
    """Hint about a file whose name differs only in case."""
    path = Path(name)
    if path.exists() or not path.parent.is_dir():
        return None
    near = [p.name for p in path.parent.iterdir() if p.name.casefold() == path.name.casefold()]
    return f"the case of letters counts: did you mean {near[0]}?" if near else None


def _upright_rgb(image: Image.Image) -> Image.Image:
    """Decodes an opened image; the result has no EXIF and no profile, which no longer apply."""
    settle_exif(image)
    settle_key(image)
    box = drawn_box(image)
    with quiet_libtiff() if image.format == "TIFF" else nullcontext():
        image.load()
    rgb = to_rgb(image)
    if box is not None:
        rgb = white_outside(rgb, box)
    method = turn(image)
    upright = rgb if method is None else rgb.transpose(method)
    upright.info = {}
    return upright


def _require_decodable(image: Image.Image, *, name: str, max_pixels: int) -> None:
    """Refuses an image by its header; an image in memory has no format."""
    if image.format is not None and image.format not in FORMATS:
        raise _not_decoded(f"a file of format {image.format}", name=name)
    require_pixels(image.width, image.height, name=name, max_pixels=max_pixels)


def _not_decoded(kind: str, *, name: str) -> ImageError:
    do = "convert it to JPEG or PNG"
    if kind.endswith("HTML file"):
        do = "load the image itself, not a web page"
    elif kind.endswith("HEIC file") and not register_heic():
        do = f"run pip install 'qvft[heic]', or {do}"
    return ImageError(
        kind, where=name, expected="one of " + ", ".join(sorted(FORMATS)) + ", or DICOM", do=do
    )


def _cause(error: Exception) -> str:
    """Cause of an error, without the path."""
    if isinstance(error, FileNotFoundError):
        return ABSENT
    if isinstance(error, IsADirectoryError):
        return "a folder"
    if isinstance(error, PermissionError):
        return "not readable (permission denied)"
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format or kind, or broken in its header"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"refused as a decompression bomb: {error}"
    if isinstance(error, MemoryError):
        return "too large for the memory"
    return f"cannot be decoded: {str(error) or type(error).__name__}"
