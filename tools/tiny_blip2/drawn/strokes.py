"""Handwriting: every digit and letter as pen strokes, drawn with a shaky hand.

A variant is a tuple of strokes; a stroke is a tuple of points `(x, y)` in the unit square, x to the
right and y down. A point given twice keeps its corner, every other point is rounded.
"""

import random

from PIL import Image, ImageDraw

Point = tuple[float, float]
Stroke = tuple[Point, ...]

MASK_SIZE_PX = 32


def _stroke(text: str) -> Stroke:
    numbers = [int(word) / 100 for word in text.replace(",", " ").split()]
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def _variants(*texts: str) -> tuple[tuple[Stroke, ...], ...]:
    return tuple(tuple(_stroke(part) for part in text.split("|")) for text in texts)


PEN_STROKES: dict[str, tuple[tuple[Stroke, ...], ...]] = {
    "0": _variants(
        "50,0 15,12 5,50 15,88 50,100 85,88 95,50 85,12 50,0",
        "60,0 25,15 10,50 20,90 45,100 80,80 92,45 80,8 50,3 35,10",
    ),
    "1": _variants(
        "50,0 50,100",
        "20,25 55,0 55,0 55,100",
        "20,25 55,0 55,0 55,100 55,100 | 20,100 85,100",
        "15,40 60,0 60,0 60,100",
    ),
    "2": _variants(
        "8,25 25,3 65,0 90,20 80,45 40,75 5,100 5,100 95,100",
        "10,20 50,0 85,20 70,55 25,90 5,85 20,72 50,90 95,100",
        "10,15 50,0 88,18 75,50 10,98 10,98 95,92",
    ),
    "3": _variants(
        "10,12 45,0 85,12 80,38 40,48 40,48 85,60 92,85 50,100 5,88",
        "10,0 90,0 90,0 45,40 45,40 90,60 85,90 45,100 5,88",
        "10,10 50,0 88,15 75,42 45,48 75,52 95,78 60,100 5,92",
    ),
    "4": _variants(
        "30,0 8,60 8,60 95,60 95,60 | 70,25 70,100",
        "70,100 70,0 70,0 5,68 5,68 97,68",
        "20,0 15,45 15,45 85,45 85,45 | 85,0 75,100",
        "60,0 5,70 5,70 95,65 95,65 | 60,40 55,100",
    ),
    "5": _variants(
        "90,0 25,0 25,0 15,45 15,45 55,36 92,62 75,95 35,100 5,88",
        "20,0 15,45 15,45 60,38 92,68 60,100 5,92 | 20,0 95,2",
        "85,0 30,3 30,3 20,48 20,48 65,45 85,75 55,100 10,98",
    ),
    "6": _variants(
        "75,0 30,25 8,65 25,97 65,100 92,78 75,52 40,50 12,70",
        "55,0 20,40 10,75 35,100 75,98 90,75 65,55 30,62 15,80",
        "85,5 50,0 15,30 5,70 30,100 75,98 90,70 60,50 15,68",
    ),
    "7": _variants(
        "5,0 95,0 95,0 40,100",
        "5,2 95,2 95,2 65,50 45,100 45,100 | 30,50 88,50",
        "5,18 7,2 7,2 95,2 95,2 60,50 40,100",
        "5,5 90,0 90,0 70,45 60,100 60,100 | 35,55 95,45",
    ),
    "8": _variants(
        "50,47 15,28 22,4 50,0 78,4 85,28 50,47 10,72 18,96 50,100 82,96 90,72 50,47",
        "85,15 50,0 15,20 50,48 90,75 50,100 10,78 50,48 85,15",
        "75,10 35,0 15,22 75,65 80,92 45,100 20,85 35,60 80,30 75,10",
    ),
    "9": _variants(
        "85,25 60,2 20,8 10,35 40,52 80,40 87,20 87,20 80,60 60,100",
        "88,20 50,0 12,22 30,50 75,42 88,15 88,15 85,75 55,100 15,92",
        "85,10 40,0 10,25 30,50 70,42 88,8 88,8 80,100",
    ),
    "A": _variants("5,100 50,0 50,0 95,100 95,100 | 22,62 78,62"),
    "B": _variants("10,0 10,100 10,100 | 10,0 80,5 80,42 10,48 10,48 90,55 90,95 10,100"),
    "C": _variants("92,15 55,0 10,20 5,60 30,100 70,100 95,85"),
    "D": _variants("12,0 12,100 12,100 | 12,0 60,2 95,40 85,85 12,100"),
    "E": _variants("92,0 10,0 10,0 10,100 10,100 95,100 95,100 | 10,48 80,48"),
    "F": _variants("92,0 12,0 12,0 12,100 12,100 | 12,48 80,48"),
    "G": _variants("90,15 55,0 10,20 5,65 35,100 90,92 92,55 92,55 55,55"),
    "H": _variants("10,0 10,100 | 90,0 90,100 | 10,50 90,50"),
    "J": _variants("75,0 75,75 45,100 10,88 5,70"),
    "K": _variants("12,0 12,100 | 90,0 12,55 12,55 95,100"),
    "L": _variants("15,0 15,100 15,100 92,100"),
    "M": _variants("5,100 12,0 12,0 50,65 50,65 88,0 88,0 95,100"),
    "N": _variants("10,100 10,0 10,0 90,100 90,100 90,0"),
    "P": _variants("12,0 12,100 12,100 | 12,0 80,2 92,28 75,52 12,55"),
    "Q": _variants("50,0 12,12 5,50 15,85 50,95 85,85 95,50 85,12 50,0 | 60,65 97,100"),
    "R": _variants("12,0 12,100 12,100 | 12,0 85,2 88,45 12,52 12,52 95,100"),
    "S": _variants("88,12 50,0 12,15 20,42 80,58 90,85 50,100 8,88"),
    "T": _variants("3,0 97,0 97,0 | 50,0 50,100"),
    "U": _variants("10,0 10,70 30,100 70,100 90,70 90,0"),
    "V": _variants("5,0 50,100 50,100 95,0"),
    "W": _variants("3,0 25,100 25,100 50,35 50,35 75,100 75,100 97,0"),
    "X": _variants("5,0 95,100 | 95,0 5,100"),
    "Y": _variants("5,0 50,48 50,48 95,0 95,0 | 50,48 50,100"),
    "Z": _variants("5,0 95,0 95,0 5,100 5,100 95,100"),
}


def _rounded(points: list[Point]) -> list[Point]:
    for _ in range(2):
        cut = [points[0]]
        for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
            cut.append((0.75 * x0 + 0.25 * x1, 0.75 * y0 + 0.25 * y1))
            cut.append((0.25 * x0 + 0.75 * x1, 0.25 * y0 + 0.75 * y1))
        cut.append(points[-1])
        points = cut
    return points


def handwritten_mask(character: str, rng: random.Random) -> Image.Image:
    """Draw one character by hand and return its mask.

    Shape: `MASK_SIZE_PX` square, mode "L", 255 where the pen went. The variant, the pen's width and
    the shake of each point come from `rng`.

    Raises:
        KeyError: `character` has no pen strokes (they exist for the ten digits and the 24 capital
            letters other than I and O).
    """
    width_px = rng.choice((2, 3, 3, 4, 4, 5, 6))
    margin = width_px / 2 + 0.5
    scale = MASK_SIZE_PX - 1 - 2 * margin
    shake = rng.uniform(0.01, 0.06)
    mask = Image.new("L", (MASK_SIZE_PX, MASK_SIZE_PX), 0)
    pen = ImageDraw.Draw(mask)
    for stroke in rng.choice(PEN_STROKES[character]):
        moved: dict[Point, Point] = {}
        for x, y in stroke:
            moved[x, y] = (x + rng.gauss(0.0, shake), y + rng.gauss(0.0, shake))
        line = _rounded([moved[point] for point in stroke])
        pixels = [
            (margin + scale * min(max(x, 0.0), 1.0), margin + scale * min(max(y, 0.0), 1.0))
            for x, y in line
        ]
        pen.line(pixels, fill=255, width=width_px, joint="curve")
    return mask
