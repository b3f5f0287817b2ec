"""Image folder with a metadata file: warns of images that the metadata does not list."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from qvft.data.images.listing import images_among
from qvft.log import get_logger

_log = get_logger(__name__)


def count_images_without_row(folder: Path, named: Iterable[str]) -> None:
    """Warns of images in the folder that are not among the paths `named`, with the first one."""
    known = {Path(name).resolve() for name in named}
    images, _ = images_among(sorted(folder.rglob("*")))
    left_out = [image for image in images if image.resolve() not in known]
    if left_out:
        _log.warning(
            "%s: images without a row in the metadata, left out: %d of %d, first %s",
            folder,
            len(left_out),
            len(images),
            left_out[0].relative_to(folder),
        )
