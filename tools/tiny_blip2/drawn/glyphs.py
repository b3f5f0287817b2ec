"""Masks of digits, letters and shapes: printed or handwritten, warped, of low resolution."""

import random
from functools import cache, lru_cache
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from tools.tiny_blip2.drawn.strokes import handwritten_mask

DIGITS = tuple("0123456789")
LETTERS = tuple("ABCDEFGHJKLMNPQRSTUVWXYZ")  # I and O look like 1 and 0
SHAPES = ("circle", "square", "triangle", "star", "cross", "arrow", "diamond", "heart")

# Lower-case forms that are told from every digit and every other letter.
_LOWER = frozenset("ABDEFHKMNRT")
_FONT_PX = 30
_FONT_FILES = (
    *(f"DejaVuSans{style}.ttf" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{style}.ttf" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}.ttf" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}.ttf" for style in ("", "Bol", "BolIta", "Italic")),
    "cmr10.ttf",
    "cmb10.ttf",
    "cmss10.ttf",
    "cmtt10.ttf",
    "cmti10.ttf",
    "",  # the font inside PIL
)
_SHAPE_POINTS: dict[str, tuple[tuple[float, float], ...]] = {
    "square": ((0.05, 0.05), (0.95, 0.05), (0.95, 0.95), (0.05, 0.95)),
    "triangle": ((0.5, 0.03), (0.98, 0.95), (0.02, 0.95)),
    "diamond": ((0.5, 0.0), (0.9, 0.5), (0.5, 1.0), (0.1, 0.5)),
    "cross": (
        *((0.35, 0.0), (0.65, 0.0), (0.65, 0.35), (1.0, 0.35), (1.0, 0.65), (0.65, 0.65)),
        *((0.65, 1.0), (0.35, 1.0), (0.35, 0.65), (0.0, 0.65), (0.0, 0.35), (0.35, 0.35)),
    ),
    "star": (
        *((0.5, 0.0), (0.62, 0.36), (1.0, 0.38), (0.7, 0.61), (0.81, 0.98)),
        *((0.5, 0.77), (0.19, 0.98), (0.3, 0.61), (0.0, 0.38), (0.38, 0.36)),
    ),
    "arrow": (
        *((0.5, 0.0), (1.0, 0.5), (0.68, 0.5), (0.68, 1.0)),
        *((0.32, 1.0), (0.32, 0.5), (0.0, 0.5)),
    ),
    "heart": (
        *((0.5, 1.0), (0.05, 0.5), (0.0, 0.25), (0.12, 0.05), (0.32, 0.03), (0.5, 0.22)),
        *((0.68, 0.03), (0.88, 0.05), (1.0, 0.25), (0.95, 0.5)),
    ),
}


@cache
def _font(file: str) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    if not file:
        return ImageFont.load_default(size=_FONT_PX)
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", file), _FONT_PX)


@lru_cache(maxsize=4096)
def _printed(character: str, file: str) -> Image.Image:
    font = _font(file)
    left, top, right, bottom = (int(edge) for edge in font.getbbox(character))
    mask = Image.new("L", (right - left + 2, bottom - top + 2), 0)
    ImageDraw.Draw(mask).text((1 - left, 1 - top), character, fill=255, font=font)
    box = mask.getbbox()
    assert box is not None, f"{file} draws nothing for {character}"
    return mask.crop(box)


@cache
def _shape(name: str) -> Image.Image:
    side = 128
    mask = Image.new("L", (side, side), 0)
    pen = ImageDraw.Draw(mask)
    if name in _SHAPE_POINTS:
        pen.polygon([(side * x, side * y) for x, y in _SHAPE_POINTS[name]], fill=255)
    else:
        pen.ellipse((2, 2, side - 3, side - 3), fill=255)
    return mask.reduce(4)


def _character_mask(character: str, rng: random.Random, *, handwritten: bool) -> Image.Image:
    if handwritten:
        mask = handwritten_mask(character, rng)
        return mask.crop(mask.getbbox())
    lower = character in _LOWER and rng.random() < 0.2
    mask = _printed(character.lower() if lower else character, rng.choice(_FONT_FILES))
    weight = rng.random()
    if weight < 0.15:
        mask = mask.filter(ImageFilter.MinFilter(3))
    elif weight < 0.35:
        mask = mask.filter(ImageFilter.MaxFilter(3))
    return mask


def glyph_mask(
    name: str,
    size_px: tuple[int, int],
    rng: random.Random,
    *,
    handwritten: bool = False,
    warp: float = 0.1,
    coarse_px: int | None = None,
) -> Image.Image:
    """Draw a digit, a capital letter or a shape and return its mask.

    Shape: `size_px` (width, height), mode "L", 255 inside the glyph.

    Args:
        name: a member of `DIGITS`, `LETTERS` or `SHAPES`.
        size_px: width and height of the box that the glyph about fills, in pixels.
        rng: source of the font, stroke weight, warp and interpolation.
        handwritten: pen strokes instead of a font; no effect on shapes.
        warp: how far each corner of the box moves, as a fraction of its side.
        coarse_px: height in pixels of an intermediate low resolution (the glyph is averaged down to
            it, then scaled up), or None for full resolution.

    Raises:
        KeyError: `name` is none of the known glyphs.
    """
    if name in SHAPES:
        mask = _shape(name)
    elif name in DIGITS or name in LETTERS:
        mask = _character_mask(name, rng, handwritten=handwritten)
    else:
        raise KeyError(name)
    width, height = mask.size
    corners = []
    for x, y in ((0, 0), (0, 1), (1, 1), (1, 0)):
        corners.append(width * (x + rng.uniform(-warp, warp)))
        corners.append(height * (y + rng.uniform(-warp, warp)))
    work_px = size_px if coarse_px is None else (32, 32)
    mask = mask.transform(work_px, Image.Transform.QUAD, corners, Image.Resampling.BILINEAR)
    if coarse_px is None:
        return mask
    small_px = (max(round(coarse_px * size_px[0] / size_px[1]), 3), coarse_px)
    upscale = rng.choice(
        (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.NEAREST)
    )
    return mask.resize(small_px, Image.Resampling.BOX).resize(size_px, upscale)
