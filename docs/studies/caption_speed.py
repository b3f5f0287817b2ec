"""`python docs/studies/caption_speed.py FOLDER`: files for timing `qvft score`.

Writes 40,000 images with five references and a prediction each, of words drawn by Zipf's law.
With `--stages`, prints the CPU seconds of each stage of scoring them instead.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from qvft.evaluation.metrics.captions import caption_batch, score_captions
from qvft.evaluation.metrics.rouge import rouge_l
from qvft.evaluation.metrics.tokenize import tokens_of_piece
from qvft.evaluation.official.captions import read_references
from qvft.evaluation.official.reading import read_results

IMAGES, REFERENCES, WORDS = 40_000, 5, 9_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stages", action="store_true")
    given = parser.parse_args()
    if given.stages:
        time_stages(given.folder)
    else:
        write_files(given.folder)


def time_stages(folder: Path) -> None:
    """CPU seconds of reading, words as numbers, n-grams, ROUGE, and of all scores together."""
    began = time.process_time()

    def stage(name: str) -> None:
        nonlocal began
        print(f"{name}: {time.process_time() - began:.2f} s")
        began = time.process_time()

    references = read_references(folder / "captions.json")
    predictions = read_results(folder / "results.json", key="image_id", text_key="caption").texts
    stage("files read")
    score_captions(references, predictions)
    stage("all scores")
    tokens_of_piece.cache_clear()
    began = time.process_time()
    known = [references[image] for image in predictions]
    batch = caption_batch(list(predictions.values()), known)
    stage("of them words split and numbered")
    assert batch.sums.matches.any()
    stage("of them n-grams")
    rouge_l(batch)
    stage("of them ROUGE_L")


def write_files(folder: Path) -> None:
    """The references and predictions, for `qvft score caption` and `qvft score predictions`."""
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
    with (folder / "predictions.jsonl").open("w") as lines:
        for place in range(0, len(rows), REFERENCES + 1):
            said, *known = (row["caption"] for row in rows[place : place + REFERENCES + 1])
            name = str(rows[place]["image_id"])
            row = {"id": name, "image": name, "prediction": said, "references": known}
            lines.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
