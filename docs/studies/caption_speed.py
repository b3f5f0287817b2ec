"""`python docs/studies/caption_speed.py FOLDER`: files for timing `qvft.score caption`.

Writes 40,000 images with five references and a prediction each, of words drawn by Zipf's law.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

IMAGES, REFERENCES, WORDS = 40_000, 5, 9_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = np.array(["".join(generator.choice(letters, 1 + i % 9)) for i in range(WORDS)])
    rank = 1 / np.arange(1, WORDS + 1)

    def caption() -> str:
        length = generator.integers(8, 16)
        return " ".join(words[generator.choice(WORDS, length, p=rank / rank.sum())]) + "."

    rows = [
        {"image_id": image, "caption": caption()}
        for image in range(IMAGES)
        for _ in range(REFERENCES + 1)
    ]
    references = [row for place, row in enumerate(rows) if place % (REFERENCES + 1)]
    content = {"images": [{"id": i} for i in range(IMAGES)], "annotations": references}
    (folder / "captions.json").write_text(json.dumps(content))
    (folder / "results.json").write_text(json.dumps(rows[:: REFERENCES + 1]))


if __name__ == "__main__":
    main()
