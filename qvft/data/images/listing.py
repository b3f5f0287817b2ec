"""Lists the images of a folder, by extension or by content, and the files that are not images."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from PIL import Image

from qvft.data.images.decoding import FORMATS, MAX_PIXELS
from qvft.data.images.dicom import SUFFIXES as DICOM
from qvft.data.images.dicom import is_dicom
from qvft.data.images.opening import open_source, register_heic
from qvft.data.images.suppress_warnings import quiet_pillow
from qvft.data.sample import ImageFile

# TGA has no magic bytes, so any file might be one.
_TOLD_BY_CONTENT = FORMATS - {"TGA"}
_EXTRAS = (*DICOM, ".heic", ".heif")
"""Of extras: counted as images without them too, so that the error says what to install."""


def images_among(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """The images and the other files, each in order; folders are neither.

    A file with a supported extension counts as image, even if broken; any other file if its first
    bytes are those of an image.
    """
    register_heic()
    endings = set(_EXTRAS) | {
        end for end, name in Image.registered_extensions().items() if name in FORMATS
    }
    images, others = [], []
    for path in paths:
        if path.suffix.lower() in endings or _begins_as_image(path):
            images.append(path)
        elif not path.is_dir():
            others.append(path)
    return images, others


def _begins_as_image(path: Path) -> bool:
    if not path.is_file():
        return False
    with suppress(OSError), path.open("rb") as file:
        if is_dicom(file.read(132)):
            return True
    try:
        with (
            quiet_pillow(),
            open_source(ImageFile(path), formats=_TOLD_BY_CONTENT, max_pixels=MAX_PIXELS),
        ):
            return True
    except Exception:  # on other files, Pillow's readers can raise nearly anything
        return False
