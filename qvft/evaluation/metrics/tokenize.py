"""PTB tokenisation of captions, as the coco-caption toolkit applies it, without Java.

The toolkit runs Stanford's `PTBTokenizer` 3.4.1 with `-preserveLines -lowerCase` and then drops
fourteen kinds of punctuation. The rules are those of the Penn Treebank lexer: at every place the
longest token wins. They are written from the lexer's observed behaviour: on every character of
Unicode's basic plane in 138 contexts, on random texts, real captions, questions and documentation.

Oddities are kept, because official scores depend on them:

- brackets become `-lrb-` and the like before lower-casing, so the toolkit's own list (`-LRB-`)
  never removes them; runs such as `?!` or `!!` are tokens that are not on the list either;
- characters that the lexer does not know vanish and separate words, among them emoji, zero-width
  joiners and the vowel signs of Burmese, Kannada, Khmer, Odia, Sinhala and Tibetan;
- text without blanks, as in Chinese, Japanese and Thai, is one token.

Source: github.com/salaniz/pycocoevalcap 1.2, tokenizer/ptbtokenizer.py; PTBTokenizer of
nlp.stanford.edu/software/tokenizer.html, release 3.4.1.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import chain

from qvft.evaluation.metrics.ptb_characters import ASTRAL, DIGIT, LETTER, MARK, UNKNOWN, shape
from qvft.evaluation.metrics.ptb_rules import ABBREVIATIONS, RULES, SYMBOLS

DROPPED = frozenset({"''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"})

# A blank joins what stands on its two sides only where there is a digit (`1 1/2`, `No. 5`, a
# telephone number) or an opening angle bracket, or between a letter with a full stop and a capital.
_MAY_JOIN = re.compile(r"[\d<\t\v\f\r\x1c-\x1f\x85\xa0\u2000-\u200a\u2028\u2029\u3000]")
_INITIAL = re.compile(r"(?:(?<![A-Za-z])[A-Za-z]|[\x92\u2019;][A-Za-z]+)\. +[A-Z]")
_INSEPARABLE = re.compile(r"<|  |[^\S ]|\. +[A-Z.]")
_DIGIT = re.compile(rf"[0-9{DIGIT}]")
# What the lexer sees after a text: the ends of lines.
_END = "\n\n"
_PLAIN_WORD = re.compile(rf"[a-z]+(?=[,.?!;]?[ \n])|[a-z{LETTER}{MARK}]+(?=[ \n])")
_ASSIMILATED = frozenset({"cannot", "gonna", "gotta", "wanna", "lemme", "gimme"})
_NOTHING = frozenset(f"\n\v\f\u2010\u066b{UNKNOWN}{ASTRAL}")
_SIGMA_WORDS = re.compile(r"([!?@/:&+=#]|-(?=\d))")


def tokenize(text: str) -> list[str]:
    """Lower-cased tokens of one caption, without the toolkit's list of punctuation."""
    return list(chain.from_iterable(map(tokens_of_piece, pieces(text))))


@lru_cache(maxsize=1 << 18)
def tokens_of_piece(piece: str) -> tuple[str, ...]:
    """As `tokenize`, of one of the `pieces` of a caption."""
    return tuple(token for token in ptb_tokens(piece) if token not in DROPPED)


def pieces(text: str) -> list[str]:
    """Parts of a text that are lexed by themselves: words, save where a blank may join them."""
    text = text.replace("\n", " ")
    chunks = text.split(" ")
    if not _MAY_JOIN.search(text):
        return [text] if ". " in text and _INITIAL.search(text) else chunks
    if _INSEPARABLE.search(text):
        return [text]
    joined: list[str] = []
    numeric = False
    for chunk, shapes in zip(chunks, shape(text).split(" "), strict=True):
        before, numeric = numeric, _DIGIT.search(shapes) is not None
        if numeric and joined and (before or "." in joined[-1]):
            joined[-1] += " " + chunk
        else:
            joined.append(chunk)
    return joined


def ptb_tokens(text: str) -> list[str]:
    """Lower-cased tokens of one caption with all punctuation still in."""
    shapes = shape(text) + _END
    tokens: list[str] = []
    position, end = 0, len(text)
    while position < end:
        plain = _PLAIN_WORD.match(shapes, position)
        if plain and _is_whole(plain.group(), shapes[plain.end() :]):
            stop, written = plain.end(), [text[position : plain.end()]]
        elif position == end - 1 and text[position] == ".":
            stop, written = end, ["."]
        else:
            stop, written = _longest(text, shapes, position)
        tokens += map(_lower, written)
        position = stop
    return tokens


def _is_whole(word: str, rest: str) -> bool:
    """Whether a plain word is a token; else longer or shorter ones may begin here."""
    if rest == "." + _END:
        return len(word) > 1 and word not in ABBREVIATIONS and word not in _ASSIMILATED
    return word not in _ASSIMILATED and not rest.startswith(".")


def _longest(text: str, shapes: str, position: int) -> tuple[int, list[str]]:
    """End of the longest token at `position`, and what is written for it."""
    reach, stop, write = position, position, None
    for pattern, rule_write in RULES:
        match = pattern.match(shapes, position)
        if match and match.end() > reach:
            reach, write = match.end(), rule_write
            stop = match.end(1) if pattern.groups else reach
    if write is not None:
        return stop, write(text[position:stop])
    if shapes[position] in _NOTHING:
        return position + 1, []
    return position + 1, [SYMBOLS.get(text[position], text[position])]


def _lower(token: str) -> str:
    """The token in lower case, sigma as Java writes it.

    It is final where a letter with case comes before it in the word and none after. Python takes a
    hyphen for the end of the word, Java does not.
    """
    if "\u03a3" not in token:
        return token.lower()
    lowered = []
    for word in _SIGMA_WORDS.split(token):
        cased = [place for place, letter in enumerate(word) if letter.lower() != letter.upper()]
        for place, letter in enumerate(word):
            final = place == cased[-1] != cased[0] if letter == "\u03a3" else False
            lowered.append("\u03c2" if final else letter.lower())
    return "".join(lowered)
