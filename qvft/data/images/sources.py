"""Turns a path, Pillow image, numpy array or bytes into an image source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from qvft.data.sample import EncodedImage, ImageFile, ImageInMemory, ImageSource
from qvft.errors import DataError
from qvft.files import given_path

ImageLike = str | Path | Image.Image | np.ndarray | bytes
"""Image types accepted from Python."""


def image_source(image: Any, *, where: str, label: str = "") -> ImageSource:
    """The source of an image; nothing is decoded.

    Args:
        image: path; Pillow image; array (height, width) or (height, width, 3 or 4) of uint8; the
            bytes of an image file; or a dict with `bytes` or `path`, as `datasets.Image` stores it.
        where: for messages, e.g. `images`.
        label: name of an image without path.

    Raises:
        DataError: it is none of these.
    """
    if isinstance(image, dict) and (image.get("bytes") or image.get("path")):
        image = image.get("bytes") or image["path"]
    if isinstance(image, str | Path):
        return ImageFile(given_path(str(image)))
    if isinstance(image, bytes | bytearray | memoryview) and len(image):
        return EncodedImage(bytes(image), label)
    if isinstance(image, np.ndarray):
        coloured = image.ndim == 3 and image.shape[2] in (3, 4)
        if image.dtype != np.uint8 or not (image.ndim == 2 or coloured) or 0 in image.shape:
            raise DataError(
                f"an array of {image.dtype} of shape {image.shape}",
                where=where,
                expected="uint8 of shape (height, width) or (height, width, 3)",
            )
        image = Image.fromarray(image)
    if isinstance(image, Image.Image):
        return ImageInMemory(image, label)
    raise DataError(
        f"a {type(image).__name__}",
        where=where,
        expected="a path, a Pillow image, a numpy array or the bytes of an image file",
        do="bring tensors to numpy: tensor.permute(1, 2, 0).numpy(), uint8 from 0 to 255"
        if type(image).__name__ == "Tensor"
        else None,
    )
