"""Scenes: what is where, sampled from (seed, index), drawn with PIL, labelled by place.

Two layouts. One thing that about fills the image (a glyph more often than a shape), at the place
"centre"; or one to four things, each in its own quarter of the image.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from tools.tiny_blip2.drawn.glyphs import DIGITS, LETTERS, SHAPES, glyph_mask

NAMES = (*SHAPES, *LETTERS, *DIGITS)
PLACES = ("top left", "top right", "bottom left", "bottom right", "centre")
SIZES = ("small", "large")
COLOURS: dict[str, tuple[int, int, int]] = {
    "black": (12, 12, 12),
    "white": (245, 245, 245),
    "gray": (128, 128, 128),
    "red": (215, 35, 35),
    "green": (40, 160, 60),
    "blue": (45, 75, 215),
    "yellow": (240, 215, 40),
    "orange": (245, 140, 25),
    "purple": (135, 50, 165),
    "pink": (245, 130, 185),
}
BACKGROUNDS = ("black", "white", "gray")
IGNORED = -100


@dataclass(frozen=True)
class Thing:
    """One drawn thing.

    `name` is a member of `NAMES`, `colour` a key of `COLOURS`, `size` a member of `SIZES`,
    `place` a member of `PLACES`.
    """

    name: str
    colour: str
    size: str
    place: str

    @property
    def kind(self) -> str:
        """ "digit", "letter" or "shape"."""
        if self.name in DIGITS:
            return "digit"
        return "letter" if self.name in LETTERS else "shape"


@dataclass(frozen=True)
class Scene:
    """What an image shows.

    `things` are in the order of `PLACES`; `background` is a member of `BACKGROUNDS`; `handwritten`
    says that glyphs are pen strokes; `coarse_px` is the low resolution (pixels a glyph's height)
    that a large glyph passes through, None for full resolution; `style_seed` feeds the drawing.
    """

    things: tuple[Thing, ...]
    background: str
    handwritten: bool
    coarse_px: int | None
    style_seed: int

    @property
    def single(self) -> bool:
        """Whether one thing fills the image."""
        return self.things[0].place == "centre"


def _name(rng: random.Random, shapes: float, digits: float) -> str:
    """A name: a shape with probability `shapes`, a digit with `digits`, else a letter."""
    draw = rng.random()
    if draw < shapes:
        return rng.choice(SHAPES)
    return rng.choice(DIGITS if draw < shapes + digits else LETTERS)


def sample_scene(seed: int, index: int) -> Scene:
    """Return the scene that belongs to `(seed, index)`; equal arguments give equal scenes."""
    rng = random.Random(f"qvft scene {seed} {index}")
    background = rng.choices(BACKGROUNDS, (6, 3, 1))[0]
    faint = {"white": "yellow", "black": "blue", "gray": "gray"}[background]
    colours = [colour for colour in COLOURS if colour not in {background, faint, "gray"}]
    handwritten = rng.random() < 0.5
    if rng.random() < 0.65:
        name = _name(rng, shapes=0.12, digits=0.6)
        plain = "white" if background == "black" else "black"
        colour = plain if rng.random() < 0.7 else rng.choice(colours)
        coarse = rng.choice((8, 8, 8, 9, 10, 12, 16)) if rng.random() < 0.55 else None
        things: tuple[Thing, ...] = (Thing(name, colour, "large", "centre"),)
    else:
        coarse = None
        places = sorted(rng.sample(range(4), rng.choices((1, 2, 3, 4), (2, 4, 3, 1))[0]))
        things = tuple(
            Thing(
                _name(rng, shapes=0.55, digits=0.28),
                rng.choice(colours),
                rng.choice(SIZES),
                PLACES[place],
            )
            for place in places
        )
    return Scene(things, background, handwritten, coarse, rng.getrandbits(48))


def _shaded(name: str, rng: random.Random) -> tuple[int, int, int]:
    red, green, blue = (min(max(level + rng.randint(-10, 10), 0), 255) for level in COLOURS[name])
    return red, green, blue


def _start(slack_px: int, rng: random.Random, *, centred: bool) -> int:
    """Where a box begins that leaves `slack_px` free: about the middle, or anywhere."""
    if centred:
        return round(slack_px * rng.uniform(0.3, 0.7))
    return rng.randint(0, max(slack_px, 0))


def _placed_masks(
    scene: Scene, size_px: int, rng: random.Random
) -> Iterator[tuple[Thing, tuple[int, int], Image.Image]]:
    """Yield each thing with the top left corner of its box (pixels) and its mask."""
    room = size_px if scene.single else size_px // 2
    for thing in scene.things:
        if scene.single:
            share, column, row = rng.uniform(0.82, 1.0), 0, 0
        else:
            share = rng.uniform(0.8, 0.98) if thing.size == "large" else rng.uniform(0.5, 0.62)
            row, column = divmod(PLACES.index(thing.place), 2)
        narrow = rng.uniform(0.85, 1.0) if thing.kind == "shape" else rng.uniform(0.6, 0.95)
        if thing.name == "1":
            narrow *= 0.6
        height = room * share
        box_px = (max(round(height * narrow), 4), max(round(height), 6))
        mask = glyph_mask(
            thing.name,
            box_px,
            rng,
            handwritten=scene.handwritten,
            warp=0.05 if thing.kind == "shape" else 0.08,
            coarse_px=scene.coarse_px,
        )
        x = column * room + _start(room - box_px[0], rng, centred=scene.single)
        y = row * room + _start(room - box_px[1], rng, centred=scene.single)
        yield thing, (x, y), mask


def draw(scene: Scene, size_px: int) -> Image.Image:
    """Draw a scene and return it as an RGB image of `size_px` by `size_px` pixels.

    Equal arguments give equal pixels.

    Raises:
        ValueError: `size_px` is below 16, where a quarter of the image holds no glyph.
    """
    if size_px < 16:
        raise ValueError(f"size_px is {size_px}; a scene needs at least 16 pixels a side")
    rng = random.Random(scene.style_seed)
    image = Image.new("RGB", (size_px, size_px), _shaded(scene.background, rng))
    for thing, corner, mask in _placed_masks(scene, size_px, rng):
        image.paste(_shaded(thing.colour, rng), corner, mask)
    finish = rng.random()
    if finish < 0.15:
        return image.filter(ImageFilter.BoxBlur(rng.uniform(0.5, 1.2)))
    if finish < 0.35:
        noise = np.random.default_rng(scene.style_seed).normal(
            0.0, rng.uniform(4.0, 16.0), (size_px, size_px, 1)
        )
        return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))
    return image


def targets(scene: Scene) -> dict[str, np.ndarray]:
    """Return what stands where as class numbers, for supervised heads.

    Each value has shape (5,), int64, one entry a place in the order of `PLACES`:

    - "name": 0 nothing, else 1 + index in `NAMES`;
    - "colour": 0 nothing, else 1 + index in `COLOURS`;
    - "size": 0 nothing, else 1 + index in `SIZES`.

    `IGNORED` (-100) where the layout leaves a place undefined: the quarters of an image that one
    thing fills, and the centre of the others. "size" at the centre is always ignored.
    """
    values = {
        key: np.full(len(PLACES), IGNORED, dtype=np.int64) for key in ("name", "colour", "size")
    }
    if not scene.single:
        for column in values.values():
            column[:4] = 0
    for thing in scene.things:
        place = PLACES.index(thing.place)
        values["name"][place] = 1 + NAMES.index(thing.name)
        values["colour"][place] = 1 + list(COLOURS).index(thing.colour)
        if not scene.single:
            values["size"][place] = 1 + SIZES.index(thing.size)
    return values
