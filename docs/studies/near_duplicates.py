"""`python docs/studies/near_duplicates.py FOLDER`: which changed copies `qvft.check` knows again.

Every image of FOLDER is looked at beside a changed copy of itself, and all images beside one
another: what is then called a copy, is wrongly called one (or the folder holds copies).
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageEnhance

from qvft.data.images.decoding import decode
from qvft.data.quality.near_duplicates import DECODED_SIDE, near_pairs, sign
from qvft.data.sample import ImageFile, ImageInMemory


def jpeg(image: Image.Image) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=50)
    return Image.open(stream).convert("RGB")


def cropped(image: Image.Image) -> Image.Image:
    across, down = round(0.03 * image.width), round(0.03 * image.height)
    return image.crop((across, down, image.width - across, image.height - down))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG quality 50": jpeg,
    "half size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "3 % off each side": cropped,
    "brightness +10 %": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "brightness +30 %": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


def tied(files: list[ImageFile], changed: list[Image.Image]) -> int:
    """Pairs of the images, in files and changed, that are called copies."""
    signatures = [sign(file, decode(file, least_side=DECODED_SIDE)) for file in files]
    signatures += [sign(ImageInMemory(image), image) for image in changed]
    sources = [*files, *map(ImageInMemory, changed)]
    return len(near_pairs(signatures, lambda place: decode(sources[place])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=1, help="changed are only each Nth image")
    given = parser.parse_args()
    files = [ImageFile(path) for path in sorted(given.folder.iterdir())]
    chosen = files[:: given.every]
    for name, change in CHANGES.items():
        found = sum(tied([file], [change(decode(file))]) for file in chosen)
        print(f"{name:20} {found} of {len(chosen)} tied to their original")
    pairs = len(files) * (len(files) - 1) // 2
    print(f"{tied(files, [])} of {pairs} pairs of different images called copies")


if __name__ == "__main__":
    main()
