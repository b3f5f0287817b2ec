"""Lists the images of a folder, by extension or by content, and the files that are not images."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from qvft.data.images.decoding import FORMATS, MAX_PIXELS
from qvft.data.images.opening import open_source
from qvft.data.images.suppress_warnings import quiet_pillow
from qvft.data.sample import ImageFile

# Nothing at a TGA's beginning tells that it is one, so that any file might be.
_TOLD_BY_CONTENT = FORMATS - {"TGA"}


def images_among(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """The images and the other files, each in order; folders are neither.

    An ending of a format that is decoded makes an image, also a broken one; a file with any other
    ending is one if it begins as an image does.
    """
    endings = {end for end, name in Image.registered_extensions().items() if name in FORMATS}
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
    try:
        with (
            quiet_pillow(),
            open_source(ImageFile(path), formats=_TOLD_BY_CONTENT, max_pixels=MAX_PIXELS),
        ):
            return True
    except Exception:  # what is no image makes Pillow's readers raise nearly anything
        return False
