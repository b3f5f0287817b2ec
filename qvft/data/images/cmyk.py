"""Converts CMYK images to RGB."""

from __future__ import annotations

import io

from PIL import Image, ImageCms


def cmyk_to_rgb(image: Image.Image) -> Image.Image:
    """A CMYK image as sRGB: by its ICC profile if a usable one is embedded, else by Pillow's rule.

    Without a profile, CMYK has no defined colour; Pillow's rule is red = (255 - cyan) * (255 -
    black) / 255, which is more saturated than print.
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
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,  # so that full CMYK is black
            )
            return transform.apply(image)
        except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
            pass  # damaged, or an RGB profile: ignored
    return image.convert("RGB")
