"""Photographs, captions, a model and a recipe for measuring whole commands.

    python docs/studies/whole_data.py FOLDER [--photos DIR] [--images 80] [--texts 25]
    qvft bench FOLDER/captions.yaml --whole --json whole.json
    qvft bench FOLDER/questions.yaml --serve --json serve.json

Writes 80 JPEG photographs of 640 x 480 pixels: random crops, mirrored or not, of the two that
scikit-learn ships, or of those in DIR. Each has 25 captions whose lengths are those of COCO's (8 to
24 words, 10.5 on average; every word is one token of the model's tokenizer), and five questions.
The model is that of `scaled_model.py`; `captions.yaml` trains one epoch on one thread, 80 texts per
step, five of an image together. `questions.yaml` names the bundled model, which answers.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image
from scaled_model import write_model, write_recipe
from transformers import AutoTokenizer

sys.path.append(str(Path(__file__).resolve().parents[2]))  # where tools/ is

from tools.tiny_blip2.drawn import questions, sample_scene, vocabulary_texts

SIZE_PX = (640, 480)
SHORTEST, LONGEST, MEAN, SPREAD = 8, 24, 10.5, 2.4
"""Words per caption, as in COCO's training captions."""


def photographs(paths: Sequence[Path], count: int, rng: random.Random) -> Iterator[Image.Image]:
    """Random crops of the photographs, of at least 70 % of each side."""
    for index in range(count):
        with Image.open(paths[index % len(paths)]) as opened:
            photo = opened.convert("RGB")
        width, height = (round(side * rng.uniform(0.7, 1.0)) for side in photo.size)
        left, top = rng.randint(0, photo.width - width), rng.randint(0, photo.height - height)
        crop = photo.resize(SIZE_PX, box=(left, top, left + width, top + height))
        yield crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else crop


def caption(words: Sequence[str], rng: random.Random) -> str:
    """Words of the model's vocabulary, as many as a caption of COCO has."""
    count = min(LONGEST, max(SHORTEST, round(rng.gauss(MEAN, SPREAD))))
    return " ".join(rng.choices(words, k=count))


def shipped_photographs() -> list[Path]:
    """The two photographs of scikit-learn."""
    import sklearn

    return sorted((Path(sklearn.__file__).parent / "datasets" / "images").glob("*.jpg"))


def write_data(folder: Path, paths: Sequence[Path], *, images: int, texts: int) -> None:
    """Photographs, and a line per photograph in captions.jsonl and in questions.jsonl."""
    rng = random.Random(0)
    known = {word for text in vocabulary_texts() for word in text.split() if word.isalpha()}
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    words = [word for word in sorted(known) if len(tokenizer.tokenize(f" {word}")) == 1]
    (folder / "images").mkdir()
    captioned, asked = [], []
    for index, photo in enumerate(photographs(paths, images, rng)):
        name = f"images/{index}.jpg"
        photo.save(folder / name, quality=90)
        captions = [caption(words, rng) for _ in range(texts)]
        captioned.append(json.dumps({"image": name, "captions": captions}))
        pairs = rng.choices(questions(sample_scene(7, index)), k=5)
        listed = [{"question": question, "answers": [answer]} for question, answer in pairs]
        asked.append(json.dumps({"image": name, "questions": listed}))
    for name, lines in (("captions", captioned), ("questions", asked)):
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def main() -> int:
    """Writes everything into a new folder."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="new folder")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="take these photographs (JPEG)")
    parser.add_argument("--images", type=int, default=80)
    parser.add_argument("--texts", type=int, default=25, help="captions per photograph")
    given = parser.parse_args()
    folder = given.folder.resolve()
    paths = shipped_photographs() if given.photos is None else sorted(given.photos.glob("*.jpg"))
    if not paths:
        parser.error(f"no .jpg file in {given.photos}")
    folder.mkdir(parents=True)
    write_model(folder / "model")
    write_data(folder, paths, images=given.images, texts=given.texts)
    one_thread = {"threads": 1}
    captions = {"train": {"path": str(folder / "captions.jsonl")}, "num_workers": 1}
    batches = {"per_device_train_batch_size": 80, "texts_per_image": 5}
    write_recipe(
        folder / "captions.yaml",
        {
            "name": "whole_captions",
            "model": {"id": str(folder / "model")},
            "data": captions,
            "train": batches,
            "run": one_thread,
        },
    )
    write_recipe(
        folder / "questions.yaml",
        {
            "name": "whole_questions",
            "model": {"id": "qvft/tiny-blip2"},
            "data": {"eval": {"path": str(folder / "questions.jsonl")}},
            "run": one_thread,
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
