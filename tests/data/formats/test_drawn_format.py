"""Drawn scenes as samples."""

from __future__ import annotations

import pickle

from qvft.data import drawn
from qvft.data.formats import read_samples
from qvft.data.images.decoding import decode


def test_a_sample_holds_the_texts_of_its_scene() -> None:
    sample = read_samples("drawn", "seed=5,count=1,first=9")[0]
    scene = drawn.sample_scene(5, 9)
    assert sample.captions == tuple(drawn.captions(scene))
    asked = [(question.text, question.answers) for question in sample.questions]
    assert asked == [(text, (answer,)) for text, answer in drawn.questions(scene)]
    assert sample.meta == {"seed": 5, "index": 9}


def test_first_shifts_the_window() -> None:
    whole = read_samples("drawn", "seed=5,count=4")
    assert read_samples("drawn", "count=2, seed=5, first=2") == whole[2:]


def test_the_image_is_drawn_at_its_size_and_survives_pickling() -> None:
    source = read_samples("drawn", "seed=5,count=1,size=48")[0].image
    image = decode(source)
    assert image.size == (48, 48)
    assert decode(pickle.loads(pickle.dumps(source))).tobytes() == image.tobytes()
