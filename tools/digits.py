"""scikit-learn's bundled handwritten digits as a JSONL dataset: `python tools/digits.py OUT`.

1,797 real 8 x 8 images, cut from the UCI Optical Recognition of Handwritten Digits set, at hand
without a network. The folder written is an ordinary custom JSONL dataset.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from qvft.errors import DataError
from qvft.files import given_path, new_folder
from qvft.log import exit_status
from qvft.terminal import program

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIZE_PX = 64
GREY_LEVELS = 16
HELD_OUT = 397


def write_digits(folder: Path, *, seed: int = 0) -> dict[str, int]:
    """Writes `train.jsonl`, `test.jsonl` and `images/`, split by image.

    Args:
        folder: must not exist; it appears whole or not at all.
        seed: of the split.

    Returns:
        Images by split: 1,400 and 397.

    Raises:
        DataError: `folder` exists, or scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            "scikit-learn is not installed", do="pip install 'qvft[quickstart]'"
        ) from error
    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    splits = {"test": order[:HELD_OUT], "train": order[HELD_OUT:]}
    with new_folder(folder) as out:
        (out / "images").mkdir()
        for split, indices in splits.items():
            lines = []
            for index in sorted(int(i) for i in indices):
                _draw(digits.images[index]).save(out / "images" / f"{index:04}.png")
                lines.append(json.dumps(_row(index, int(digits.target[index]))))
            (out / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {split: len(indices) for split, indices in splits.items()}


def _draw(ink: np.ndarray) -> Image.Image:
    """A grey image (SIZE_PX square) of ink values (8, 8) in 0..16, light on dark."""
    grey = Image.fromarray((ink * (255 / GREY_LEVELS)).astype(np.uint8))
    return grey.resize((SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC)


def _row(index: int, digit: int) -> dict[str, Any]:
    """The JSONL row of a digit: one caption, one open and two closed questions."""
    even, greater = digit % 2 == 0, digit > 4
    questions = [
        ("Which digit is written?", NAMES[digit], "open"),
        ("Is it even?", "yes" if even else "no", "closed"),
        ("Is it greater than four?", "yes" if greater else "no", "closed"),
    ]
    return {
        "id": f"digit{index:04}",
        "image": f"images/{index:04}.png",
        "captions": [f"the handwritten digit {NAMES[digit]}"],
        "questions": [
            {"question": text, "answers": [answer], "meta": {"answer_type": kind}}
            for text, answer, kind in questions
        ],
    }


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the dataset; returns the exit status."""
    parser = argparse.ArgumentParser(prog="digits", description=__doc__)
    parser.add_argument("out", type=given_path, help="folder to write, e.g. data/digits")
    given = parser.parse_args(arguments)

    def write() -> None:
        if (given.out / "train.jsonl").is_file():
            print(f"{given.out} is there already")
            return
        counts = write_digits(given.out)
        print(f"{given.out}: {counts['train']} training and {counts['test']} test images")

    return exit_status(write)


if __name__ == "__main__":
    sys.exit(main())
