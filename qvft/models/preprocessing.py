"""Image processor without normalisation: resizes to the model's size, pixel values 0 to 1."""

from __future__ import annotations

import copy
from typing import Any


def plain_pixels(image_processor: Any) -> Any:
    """A copy of an image processor that resizes without keeping the aspect ratio and does not
    normalise (values 0 to 1).

    Source: the notebook published with QVision, which leaves out CLIP's normalisation, cropping and
    resizing of the shorter side; its training has them.
    """
    plain = copy.deepcopy(image_processor)
    size = getattr(plain, "crop_size", None) or plain.size
    plain.size = type(plain.size)(height=size["height"], width=size["width"])
    plain.do_center_crop = False
    plain.do_normalize = False
    return plain
