"""Decodes any image source safely: an upright RGB image, or one `ImageError`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path, PurePath

from PIL import Image, UnidentifiedImageError

from qvft.data.images.opening import foreign_format, open_source
from qvft.data.images.orientation import settle_exif, turn
from qvft.data.images.rgb import to_rgb
from qvft.data.images.suppress_warnings import quiet_libtiff, quiet_pillow
from qvft.data.images.transparency import drawn_box, settle_key, white_outside
from qvft.data.sample import ImageFile, ImageSource
from qvft.errors import ImageError, UserError

MAX_PIXELS = 64_000_000
"""Largest width x height decoded unless told otherwise: 192 MB of RGB."""

ABSENT = "no such file"
"""What an error says of an image whose path leads nowhere."""

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
"""What is decoded. Not EPS, whose decoding starts Ghostscript: nothing that executes is loaded.
Nor formats in which hardly any data set ships (PSD, DDS): every decoder is one more that meets
strangers' files."""

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
"""By the ending of a name that is no known image: what it probably is."""

_HEIC_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"mif1", b"msf1"})


def decode(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The first frame of an image as RGB, turned upright as its EXIF says; see `rgb.to_rgb`.

    Args:
        source: where the pixels come from.
        max_pixels: larger images (width x height) are refused before they are decoded, icons
            right after: Pillow decodes them on opening. Its own limit of 89 million holds beside.
            Files beyond 8 bytes for each, and 16 MiB, are not opened.

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
        with (
            quiet_pillow(),
            open_source(source, formats=FORMATS, max_pixels=max_pixels) as image,
        ):
            _require_decodable(image, name=source.name, max_pixels=max_pixels)
            if reduced:
                image.draft(image.mode, (max(image.width // 8, 1), max(image.height // 8, 1)))
            return _upright_rgb(image)
    except UserError:
        raise
    except Exception as error:  # a broken file makes Pillow's decoders raise nearly anything
        kind = _kind_by_bytes(source) or _CONVERT.get(PurePath(source.name).suffix.lower())
        if isinstance(error, UnidentifiedImageError) and _is_empty(source):
            raise ImageError("an empty file", where=source.name, do="replace the file") from error
        if kind and isinstance(error, UnidentifiedImageError):
            raise _not_decoded(f"probably a {kind} file", name=source.name) from error
        foreign = foreign_format(_head(source), FORMATS)
        if foreign and isinstance(error, UnidentifiedImageError):
            raise _not_decoded(f"a file of format {foreign}", name=source.name) from error
        raise ImageError(
            _cause(error),
            where=source.name,
            expected="an image that decodes whole",
            do=_other_case(source.name)
            or "replace the file or leave it out (data.on_bad_image: skip)",
        ) from error


def _is_empty(source: ImageSource) -> bool:
    return isinstance(source, ImageFile) and not source.path.stat().st_size


def _kind_by_bytes(source: ImageSource) -> str | None:
    """What a file that is no known image is, by its first bytes."""
    head = _head(source)
    if head[128:132] == b"DICM":
        return "DICOM"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS:
        return "HEIC"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "HTML"
    return "PDF" if head.startswith(b"%PDF") else None


def _head(source: ImageSource) -> bytes:
    """The first bytes of a source's file; empty where it has none or it cannot be read."""
    if not isinstance(source, ImageFile) or not source.path.is_file():
        return b""
    try:
        with source.path.open("rb") as file:
            return file.read(256)
    except OSError:
        return b""


def _other_case(name: str) -> str | None:
    """A question about a file beside it that is called the same but for the case of letters."""
    path = Path(name)
    if path.exists() or not path.parent.is_dir():
        return None
    near = [p.name for p in path.parent.iterdir() if p.name.casefold() == path.name.casefold()]
    return f"the case of letters counts: did you mean {near[0]}?" if near else None


def _upright_rgb(image: Image.Image) -> Image.Image:
    """Decodes an opened image; what Pillow gets wrong about a format is set right around `load`.

    The result carries no EXIF and no profile, which would no longer be true of it.
    """
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
    """Refuses by what the header says; an image drawn in memory has no format and may pass."""
    if image.format is not None and image.format not in FORMATS:
        raise _not_decoded(f"a file of format {image.format}", name=name)
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


def _not_decoded(kind: str, *, name: str) -> ImageError:
    page = kind.endswith("HTML file")
    return ImageError(
        kind,
        where=name,
        expected="one of " + ", ".join(sorted(FORMATS)),
        do="load the image itself, not a web page" if page else "convert it to JPEG or PNG",
    )


def _cause(error: Exception) -> str:
    """What went wrong, in words that do not repeat the path."""
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
