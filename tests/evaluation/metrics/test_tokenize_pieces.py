"""Lexing a text piece by piece, which is what makes it fast, gives the tokens of the whole."""

from __future__ import annotations

import random

import pytest

from qvft.evaluation.metrics import ptb_rules
from qvft.evaluation.metrics import tokenize as lexer
from qvft.evaluation.metrics.tokenize import DROPPED, ptb_tokens, tokenize

PARTS = [
    "No.", "Fig.", "fig.", "no.", "pp.", "B.", "The", "Mr.", "1", "12", "1/2", "3/4", "(555)",
    "555-", "1234", "12345", "+49", ".", "...", "..", ".5", "5.", "5,", "a", "dog", "<b", ">",
    '"1"', "\u00ad", "\u200b", "\u00a0", "\t", "\n", "\u0665", "\u00bd", "10:30", "--", "'90s",
    "'", "5's", "don't", "U.S.", "www.a.com", "$", "#1", "No.\u00ad", "No.\u200b", "p.m.", "7B.",
    "x-B.", "art.", "(212)", "555-1234", "\u00e9", "\U0001d7d9", "\u00b2", "\x1c", "\x85", "?",
]  # fmt: skip
BETWEEN = ["", " ", " ", "  "]


def whole(text: str) -> list[str]:
    return [token for token in ptb_tokens(text) if token not in DROPPED]


@pytest.mark.parametrize("seed", range(4))
def test_pieces_of_texts_with_digits_give_the_tokens_of_the_whole(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(1000):
        count = draw.randint(2, 7)
        text = "".join(draw.choice(PARTS) + draw.choice(BETWEEN) for _ in range(count)) + " 5"
        assert tokenize(text) == whole(text), repr(text)


@pytest.mark.parametrize(
    "text",
    [
        "cut 1 1/2 inches off",
        "No. 5 of Fig. 3",
        "call (555) 555 12345 now",
        "call 555 1234 12345 now",
        "wait . . .5 more",
        "row 5 of plan B. The end",
        "two  1  1/2 blanks",
    ],
)
def test_what_a_blank_joins_stays_joined(text: str) -> None:
    assert tokenize(text) == whole(text)


def test_plain_words_are_lexed_as_the_rules_alone_lex_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw = random.Random(0)
    lists = [ptb_rules._BEFORE_NUMBER, ptb_rules._FILE_ENDINGS, ptb_rules._SENTENCE_OPENERS]
    words = [*ptb_rules.ABBREVIATIONS, *" ".join(lists).lower().split(), *lexer._ASSIMILATED]
    words += ["".join(draw.choices("abeimnoprst", k=length % 5 + 1)) for length in range(300)]
    texts = [word + end for word in words for end in ("", ".", "..", ".?", ". .", "?", ".a", ". 5")]
    found = [ptb_tokens(text) for text in texts]
    monkeypatch.setattr(lexer, "_is_whole", lambda word, rest: False)
    assert found == [ptb_tokens(text) for text in texts]
