"""Words numbered by numpy are the pieces of the tokeniser, in the same order."""

from __future__ import annotations

import random

import pytest

from qvft.evaluation.metrics import word_numbers
from qvft.evaluation.metrics.tokenize import pieces
from qvft.evaluation.metrics.unicode_letters import composed
from qvft.evaluation.metrics.word_numbers import numbered_pieces

WORDS = (
    "a an dog dogs skateboard skateboarding extraordinarily sixteen-letters_ longer-than-sixteen "
    "A. J. 1 1/2 No. 5 <b> "
    "e\u0301te\u0301 stra\u00dfe \u03b1\u03b2\u03b3 \u0436\u0443\u043a \u05d0\u05d1 "
    "\u0661 \u4e00\u4e8c \u00b2 \U0001f600 "
    "\x7f \x7f0 \x1f \u00a0 \u2009 \u3000 \u0301 \t \n \ud800 , ."
)


@pytest.mark.parametrize("seed", range(3))
def test_words_are_the_tokenisers_pieces(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_numbers, "_TEXTS", 7)
    draw = random.Random(seed)
    words = WORDS.split(" ")
    rows = [
        draw.choices(words[: draw.choice((5, 9, len(words)))], k=draw.randrange(9))
        for _ in range(400)
    ]
    require_pieces([draw.choice((" ", " ", "")).join(row) for row in rows])


def test_no_letter_that_counts_as_plain_joins_words() -> None:
    require_pieces([f"a{chr(code)} {chr(code)} 'b" for code in range(0x800)])


def require_pieces(texts: list[str]) -> None:
    expected = [pieces(composed(text)) for text in texts]
    flat = [piece for own in expected for piece in own]
    vocabulary, numbers, sizes = numbered_pieces(texts)
    assert [vocabulary[number] for number in numbers] == flat
    assert sizes.tolist() == [len(own) for own in expected]
    assert vocabulary == list(dict.fromkeys(flat))


def test_words_that_meet_in_a_slot_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_numbers, "_HASH_BITS", 14)
    texts = [f"{'x' * (n % 9)}{chr(97 + n % 26)} {'y' * (n % 16)}" for n in range(200)]
    vocabulary, numbers, _ = numbered_pieces(texts)
    assert [vocabulary[number] for number in numbers] == " ".join(texts).split(" ")
    assert len(set(vocabulary)) == len(vocabulary)
