"""What the demo's page shows: texts with probabilities, ranked candidates, attention maps."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qvft import load_model
from qvft.demo_page.ask import DARKEST, ask, lit, row_of
from qvft.errors import ImageError
from qvft.inference.vision_language_model import VisionLanguageModel


@pytest.fixture(scope="module")
def model(drawn_run: Path) -> VisionLanguageModel:
    return load_model(drawn_run)


def test_texts_candidates_and_maps_are_those_of_prediction_and_explanation(
    model: VisionLanguageModel, shapes: Path
) -> None:
    image, question = shapes / "test0.png", "Which colour is it?"
    found = ask(model, row_of(image, f" {question}", [" red", "blue", "red"]), texts=5, seed=1)
    own = found.texts[0]
    assert own.text == model.answer(image, question)
    (log_prob,) = model.log_probs(image, own.text, question)
    # float32: the same text in another batch.
    assert own.log_prob.sum == pytest.approx(log_prob.sum, abs=1e-4)
    assert own.probability == pytest.approx(math.exp(log_prob.sum), rel=1e-4)
    assert sum(one.times for one in found.texts) == 5
    assert len({one.text for one in found.texts}) == len(found.texts)
    (ranked,) = model.rank(image, ["red", "blue"], question)
    assert [one.text for one in found.candidates] == [one.text for one in ranked]
    assert " ".join(word.word for word in found.words) == " ".join(own.text.split())
    with Image.open(io.BytesIO(found.words[0].png)) as drawn:
        assert drawn.size == (48, 48)  # as the model sees it


def test_samples_are_those_of_the_seed(model: VisionLanguageModel, shapes: Path) -> None:
    row = row_of(shapes / "test0.png")
    one, again, other = (ask(model, row, texts=8, seed=seed) for seed in (1, 1, 2))
    assert one.texts == again.texts
    assert one.texts != other.texts


def test_a_map_lights_the_patch_that_it_is_highest_at() -> None:
    drawn = lit(np.ones((40, 40, 3)), np.array([[0.0, 0.0], [0.0, 0.5]]))
    pixels = np.asarray(Image.open(io.BytesIO(drawn)))
    assert pixels[-1, -1].tolist() == [255] * 3
    assert pixels[0, 0].tolist() == [round(255 * DARKEST)] * 3


def test_a_file_that_is_no_image_is_refused(model: VisionLanguageModel, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(b"GIF89a, nearly")
    with pytest.raises(ImageError, match="image.png"):
        ask(model, row_of(path), texts=1, seed=0)
