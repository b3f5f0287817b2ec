"""The digits dataset: real images, split by image, an ordinary custom JSONL."""

from __future__ import annotations

from pathlib import Path

import pytest

from qvft.data.formats import read_samples
from qvft.errors import DataError
from tools.digits import main, write_digits

pytest.importorskip(
    "sklearn", reason="scikit-learn is not installed (pip install qvft[quickstart])"
)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "digits"
    write_digits(folder)
    return folder


def test_every_image_is_in_one_split(digits: Path) -> None:
    train = read_samples("jsonl", str(digits / "train.jsonl"))
    test = read_samples("jsonl", str(digits / "test.jsonl"))
    assert (len(train), len(test)) == (1400, 397)
    assert not {s.id for s in train} & {s.id for s in test}


def test_texts_follow_from_the_digit(digits: Path) -> None:
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    for sample in read_samples("jsonl", str(digits / "test.jsonl")):
        which, even, greater = (question.answers[0] for question in sample.questions)
        digit = words.index(which)
        assert sample.captions == (f"the handwritten digit {which}",)
        assert even == ("yes" if digit % 2 == 0 else "no")
        assert greater == ("yes" if digit > 4 else "no")


def test_an_existing_folder_is_left_alone(digits: Path, capsys) -> None:
    with pytest.raises(DataError, match="nothing is overwritten"):
        write_digits(digits)
    assert main([str(digits)]) == 0
    assert "already" in capsys.readouterr().out
