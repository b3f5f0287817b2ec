"""Converts CMYK images to RGB."""

from __future__ import annotations

import io

from PIL import Image, ImageCms


def cmyk_to_rgb(image: Image.Image) -> Image.Image:
    """A CMYK image as sRGB: by its ICC profile if a usable one is embedded, else by Pillow's rule.

    Ink has no colour but by a profile. Pillow's rule, red = (255 - cyan) * (255 - black) / 255, is
    what is left without one; it shows purer colours than any press prints.
    """
    profile = image.info.get("icc_profile")
    if profile:
        try:
            transform = ImageCms.buildTransform(
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                "CMYK",
                "RGB",
                renderingIntent=ImageCms.Intent.PERCEPTUAL,
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,  # so that full ink is black
            )
            return transform.apply(image)
        except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
            pass  # damaged, or of RGB: the pixels are good without it
    return image.convert("RGB")
