"""What frozen ViT features add to the question alone: kernel ridge regression of yes and no.

    python -m tools.real_parts.probe PARTS VQA_RAD

PARTS is what `python -m tools.real_parts` wrote, VQA_RAD the data's folder. A classifier of the
closed questions, without Q-Former and decoder, from the question's MiniLM embedding, and from that
and the image's class token, mean and deviation of DINOv2 features: roughly what a small model could
learn from these images at most. Its settings are chosen by cross-validation over training images.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, AutoProcessor, AutoTokenizer, Blip2ForConditionalGeneration

from qvft.data.formats import vqa_rad
from qvft.data.images.decoding import decode
from qvft.data.sample import Sample
from qvft.files import given_path

FOLDS = 5
MOST_PIXELS = 64_000_000
SETTINGS = list(itertools.product((4, 8, 16), (1, 3), (0.1, 0.3, 1, 3)))
"""Width of the question's kernel, of the image's, ridge."""
WEIGHTS = (1, 3, 10)
"""Weight of the product of both kernels beside the question's own."""


@dataclass(frozen=True)
class Asked:
    """Closed questions: N of them.

    Attributes:
        image: (N,) image of each.
        answer: (N,) 1 yes, -1 no, 0 another answer, which the probe never gives.
        question, seen: (N, W) embeddings of length 1.
    """

    image: np.ndarray
    answer: np.ndarray
    question: np.ndarray
    seen: np.ndarray


@torch.no_grad()
def image_features(model: Path, samples: Sequence[Sample]) -> dict[str, np.ndarray]:
    """Class token, mean and deviation of the patches by sample id, standardised, of length 1."""
    vision = Blip2ForConditionalGeneration.from_pretrained(model).vision_model.eval()
    processor = AutoProcessor.from_pretrained(model).image_processor
    found = []
    for start in range(0, len(samples), 8):
        images = [decode(one.image, max_pixels=MOST_PIXELS) for one in samples[start : start + 8]]
        pixels = processor(images=images, return_tensors="pt")["pixel_values"]
        states = vision(pixels).last_hidden_state
        found += list(torch.cat([states[:, 0], states[:, 1:].mean(1), states[:, 1:].std(1)], 1))
    values = torch.stack(found).double().numpy()
    values = (values - values.mean(0)) / (values.std(0) + 1e-6)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return {one.id: value for one, value in zip(samples, values, strict=True)}


@torch.no_grad()
def text_features(model: Path, texts: Sequence[str]) -> np.ndarray:
    """Mean token state of each text (N, W), of length 1."""
    tokenizer, encoder = AutoTokenizer.from_pretrained(model), AutoModel.from_pretrained(model)
    found = []
    for start in range(0, len(texts), 64):
        batch = tokenizer(list(texts[start : start + 64]), padding=True, return_tensors="pt")
        mask = batch["attention_mask"]
        inputs = {"input_ids": batch["input_ids"], "attention_mask": mask}
        states = encoder.eval()(**inputs).last_hidden_state * mask[..., None]
        found.append(states.sum(1) / mask.sum(1, keepdim=True))
    values = torch.cat(found).double().numpy()
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True))


def kernel(one: Asked, other: Asked, width: float, seen_width: float, weight: float) -> np.ndarray:
    """Gaussian kernels of question, and with a weight of question times image; (N, M)."""
    of_question = np.exp(width * (one.question @ other.question.T - 1))
    return of_question * (1 + weight * np.exp(seen_width * (one.seen @ other.seen.T - 1)))


def best_accuracy(train: Asked, test: Asked, weights: Sequence[float]) -> tuple[float, float]:
    """Accuracy, percent, in cross-validation over images and on the test questions, with the
    settings that are best in the former."""
    known = train.answer != 0
    images = np.unique(train.image[known])
    order = np.random.default_rng(0).permutation(len(images))
    fold = dict(zip(images[order], np.arange(len(images)) % FOLDS, strict=True))
    folds, answers = np.array([fold[one] for one in train.image[known]]), train.answer[known]
    found = []
    for (width, seen_width, ridge), weight in itertools.product(SETTINGS, weights):
        whole = kernel(train, train, width, seen_width, weight)[np.ix_(known, known)]
        right = 0
        for number in range(FOLDS):
            inside, held = folds != number, folds == number
            system = whole[np.ix_(inside, inside)] + ridge * np.eye(inside.sum())
            guess = whole[np.ix_(held, inside)] @ np.linalg.solve(system, answers[inside])
            right += int((np.sign(guess) == answers[held]).sum())
        rest = kernel(test, train, width, seen_width, weight)[:, known]
        solved = np.linalg.solve(whole + ridge * np.eye(len(answers)), answers)
        tested = np.mean(np.sign(rest @ solved) == test.answer)
        found.append((100 * right / len(answers), 100 * float(tested)))
    return max(found, key=lambda pair: pair[0])


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints both accuracies."""
    parser = argparse.ArgumentParser(prog="tools.real_parts.probe", description=__doc__)
    parser.add_argument("parts", type=given_path)
    parser.add_argument("data", type=given_path)
    given = parser.parse_args(arguments)
    samples = {split: list(vqa_rad.read(given.data, split=split)) for split in ("train", "test")}
    every = {one.id: one for split in samples.values() for one in split}
    seen = image_features(given.parts / "model", list(every.values()))
    asked = {}
    for split, found in samples.items():
        closed = [
            (one.id, question.text, question.answers[0].strip().lower())
            for one in found
            for question in one.questions
            if question.meta.get("answer_type") == "closed"
        ]
        names, texts, answers = zip(*closed, strict=True)
        asked[split] = Asked(
            np.array(names),
            np.array([{"yes": 1.0, "no": -1.0}.get(answer, 0.0) for answer in answers]),
            text_features(given.parts / "text", texts),
            np.stack([seen[name] for name in names]),
        )
    print(f"{len(asked['test'].image)} closed test questions, {len(asked['train'].image)} training")
    for name, weights in (("question", (0.0,)), ("question and image", WEIGHTS)):
        held, tested = best_accuracy(asked["train"], asked["test"], weights)
        print(f"{name}: {held:.1f} % of held-out training images, {tested:.1f} % of the test")
    return 0


if __name__ == "__main__":
    sys.exit(main())
