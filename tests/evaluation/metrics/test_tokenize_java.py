"""The tokeniser beside the official Java program; skipped where Java or the jar is absent."""

from __future__ import annotations

import json
import random
from collections import defaultdict

import pytest
from ptb_program import SCORES, TOKENS, official_scores, official_tokens, program

from qvft.errors import MissingToolError
from qvft.evaluation.metrics.ptb_characters import shape
from qvft.evaluation.metrics.tokenize import tokenize

SURROGATES = range(0xD800, 0xE000)
BASIC_PLANE = [chr(c) for c in range(0x80, 0x10000) if c not in SURROGATES]
BEYOND = [chr(c) for c in range(0x10000, 0x110000, 0x101)]
SIGMA = "\u03a3"

# What tells the classes of characters apart.
CONTEXTS = (
    "{}", "{}{}", "a{}b", "1{}2", "l'{}b", "l{}bc", "no.{}5", "\u00b2{}", "{}\u2082", "+{}1",
    "a-{}", "http://ab{}", "x@a.com{}", "rock 'n{}", " {}.com", "'90{}", "<!--{}-->",
)  # fmt: skip

# Many blanks, so that there are words.
PARTS = """
    l' d' D’ qu' j' c’ n' O' 's ’s n't 'd 've ' ’ ‘ ` « » „ “ - – / . , : ! ? … ( ) & @ # $ % 1
    2 12 3/4 etc. Mr. no. B. The U.S. cannot http:// .com x.jpg a b café naïve Straße école île
    собака м'ята Ελλάδα ילד הַ ولد قَرَأَ می خواهد कुत्ता लड़का একটি কুকুর ਮੁੰਡਾ છોકરો ଘୋଡ଼ା சிறுவன் అబ్బాయి
    ಹುಡುಗ ആൺകുട്ടി ළමයා เด็ก ເດັກ ក្មេង ကလေး བོད ልጅ 犬 ガラス 소년 ٣ ৫ ५ । ، ؟ ؛ 。 、 · ʻ ʼ ½ ² ₂ №
    ° \u0301 \u064e \u05b8 \u093f \u09bf \u0e34 \u00ad \u200b \u200c \u200d \u200f \u2010 😀 ☺
"""
WORDS = PARTS.split() + [" "] * 40


@pytest.fixture(scope="module", autouse=True)
def java() -> None:
    try:
        program()
    except MissingToolError as error:
        pytest.skip(str(error))


def test_recorded_tokens_are_what_the_program_gives() -> None:
    recorded = json.loads(TOKENS.read_text(encoding="utf-8"))
    texts = [text for captions in recorded.values() for text in captions]
    assert [" ".join(tokens) for tokens in official_tokens(texts)] == [
        tokens for captions in recorded.values() for tokens in captions.values()
    ]


def test_recorded_scores_are_what_the_toolkit_gives() -> None:
    pytest.importorskip("pycocoevalcap.cider.cider")
    for case in json.loads(SCORES.read_text(encoding="utf-8")).values():
        assert official_scores(case["references"], case["predictions"]) == case["scores"]


def test_classes_of_characters_are_the_programs() -> None:
    """The program treats all characters of a class alike, and every character has a class."""
    characters = [c for c in BASIC_PLANE if shape(c) != c] + BEYOND
    texts = [context.format(c, c) for c in characters for context in CONTEXTS]
    found = [" ".join(tokens) for tokens in official_tokens(texts)]
    classes = defaultdict(set)
    for place, character in enumerate(characters):
        treated = found[place * len(CONTEXTS) : (place + 1) * len(CONTEXTS)]
        # How sigma is lower-cased depends on its place; that is not the lexer's.
        forms = {character, character.lower()} | ({"\u03c2"} if character == SIGMA else set())
        for form in forms:
            treated = [tokens.replace(form, "\N{REPLACEMENT CHARACTER}") for tokens in treated]
        classes[shape(character)].add(tuple(treated))
    assert {name: len(treated) for name, treated in classes.items()} == dict.fromkeys(classes, 1)


@pytest.mark.parametrize("seed", range(2))
def test_every_character_in_random_texts(seed: int) -> None:
    draw = random.Random(seed)
    # Java lower-cases sigma by word boundaries of its own where scripts meet within a word, and its
    # reader joins these characters to the ends of lines.
    kept = [c for c in BASIC_PLANE if c not in SIGMA + "\u2028\u2029\x85"]
    texts = [
        "".join(
            draw.choice(kept) if draw.random() < 0.3 else draw.choice(WORDS)
            for _ in range(draw.randint(2, 9))
        )
        for _ in range(10_000)
    ]
    different = [
        (text, ours, theirs)
        for text, theirs in zip(texts, official_tokens(texts), strict=True)
        if (ours := tokenize(text)) != theirs
    ]
    assert different == []
