"""Drawn scenes as samples of qvft, and as a JSONL dataset: `python -m tools.tiny_blip2.scene_format
seed=7,count=200 OUT.jsonl`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from qvft.data.formats import fields, register_format
from qvft.data.formats.format import Format
from qvft.data.sample import Question, Sample
from qvft.data.write_jsonl import write_jsonl
from qvft.errors import DataError
from qvft.files import given_path
from qvft.log import exit_status
from tools.tiny_blip2 import drawn

_DEFAULTS = {"seed": None, "count": None, "first": 0, "size": 64}
_LEAST = {"seed": 0, "count": 1, "first": 0, "size": 16}


@dataclass(frozen=True)
class DrawnImage:
    """A scene that is drawn when it is opened; its pixels are a function of the three numbers."""

    seed: int
    index: int
    size_px: int

    @property
    def name(self) -> str:
        return f"drawn:seed={self.seed},index={self.index},size={self.size_px}"

    @property
    def content_id(self) -> str:
        return self.name

    def open(self) -> Image.Image:
        return drawn.draw(drawn.sample_scene(self.seed, self.index), self.size_px)


def read(path: str | Path, *, split: str | None = None) -> Iterator[Sample]:
    """`count` scenes from `first` on, with their captions and questions.

    Args:
        path: `seed=7,count=20000`, and optionally `first` (0) and `size` (64, pixels a side).
        split: only a label; give another seed for other scenes.

    Raises:
        DataError: an unknown key, something that is not a whole number, or a number too small.
    """
    given = _parse(str(path))
    for index in range(given["first"], given["first"] + given["count"]):
        scene = drawn.sample_scene(given["seed"], index)
        name = f"{given['seed']}-{index}"
        asked = (
            Question(f"{name}#{n}", question, (answer,) if isinstance(answer, str) else answer)
            for n, (question, answer) in enumerate(drawn.questions(scene), start=1)
        )
        yield Sample(
            name,
            DrawnImage(given["seed"], index, given["size"]),
            tuple(drawn.captions(scene)),
            tuple(asked),
            {"seed": given["seed"], "index": index},
        )


def _parse(path: str) -> dict[str, int]:
    pairs = dict(part.strip().partition("=")[::2] for part in path.split(","))
    fields.known_keys(pairs, _DEFAULTS, where=f"path `{path}`")
    numbers = {}
    for key, default in _DEFAULTS.items():
        text = pairs.get(key, "" if default is None else str(default))
        if not text.isdecimal() or int(text) < _LEAST[key]:
            raise DataError(
                f"`{key}` is `{text}`" if key in pairs else f"`{key}` is missing",
                where=f"path `{path}`",
                expected=f"a whole number, at least {_LEAST[key]}",
                do="write e.g. seed=7,count=20000,first=0,size=64",
            )
        numbers[key] = int(text)
    return numbers


FORMAT = Format("drawn", "scenes drawn by code", read, ("split",))


def register() -> None:
    """Adds `drawn` to the formats of this process: a recipe's `path` is then that of `read`."""
    register_format(FORMAT)


def write_scenes(path: str, out: Path) -> None:
    """Writes the scenes that `read` gives as JSONL, their images as PNG into a folder beside it.

    Raises:
        DataError: as `read`, or `out` exists.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(list(read(path)), out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes a dataset; returns the exit status."""
    parser = argparse.ArgumentParser(prog="tools.tiny_blip2.scene_format", description=__doc__)
    parser.add_argument("scenes", help="seed=7,count=200, and optionally first=0,size=64")
    parser.add_argument("out", type=given_path, metavar="OUT.jsonl")
    given = parser.parse_args(arguments)
    return exit_status(lambda: write_scenes(given.scenes, given.out))


if __name__ == "__main__":
    sys.exit(main())
