"""Drawn scenes as samples and as JSONL."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from qvft.data.formats import read_samples
from qvft.data.images.decoding import decode
from tools.tiny_blip2 import drawn
from tools.tiny_blip2.scene_format import main, read


def test_a_sample_holds_the_texts_of_its_scene() -> None:
    sample = next(read("seed=5,count=1,first=9"))
    scene = drawn.sample_scene(5, 9)
    assert sample.captions == tuple(drawn.captions(scene))
    asked = [(question.text, question.answers) for question in sample.questions]
    assert asked == [(text, (answer,)) for text, answer in drawn.questions(scene)]
    assert sample.meta == {"seed": 5, "index": 9}


def test_first_shifts_the_window() -> None:
    whole = list(read("seed=5,count=4"))
    assert list(read("count=2, seed=5, first=2")) == whole[2:]


def test_the_image_is_drawn_at_its_size_and_survives_pickling() -> None:
    source = next(read("seed=5,count=1,size=48")).image
    image = decode(source)
    assert image.size == (48, 48)
    assert decode(pickle.loads(pickle.dumps(source))).tobytes() == image.tobytes()


def test_written_scenes_come_back_as_they_were(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "scenes.jsonl"
    assert main(["seed=5,count=3,size=32", str(out)]) == 0
    before, after = list(read("seed=5,count=3,size=32")), read_samples("jsonl", str(out))
    for one, other in zip(before, after, strict=True):
        assert (one.id, one.captions, one.meta) == (other.id, other.captions, other.meta)
        assert [q.answers for q in one.questions] == [q.answers for q in other.questions]
        assert decode(one.image).tobytes() == decode(other.image).tobytes()


@pytest.mark.parametrize(
    "path", ["seed=7", "seed=7,count=0", "seed=7,count=2,size=8", "seed=x,count=2", "sede=7"]
)
def test_wrong_scenes_are_refused(path: str, tmp_path: Path) -> None:
    assert main([path, str(tmp_path / "out.jsonl")]) == 2
