"""PTB tokenisation of captions, as the coco-caption toolkit applies it, without Java.

The toolkit runs Stanford's `PTBTokenizer` 3.4.1 with `-preserveLines -lowerCase` and then drops
fourteen kinds of punctuation. The rules are those of the Penn Treebank lexer: at every place the
longest token wins. Here they are written from the lexer's observed behaviour on real captions,
questions, documentation and the words of two dictionaries.

Two consequences of the official order of steps are kept, because scores depend on them: brackets
become `-lrb-` and the like before lower-casing, so the toolkit's own list (`-LRB-`) never removes
them, and runs such as `?!` or `!!` are tokens that are not on the list either.

Source: github.com/salaniz/pycocoevalcap 1.2, tokenizer/ptbtokenizer.py; PTBTokenizer of
nlp.stanford.edu/software/tokenizer.html, release 3.4.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import chain

from qvft.evaluation.metrics.ptb_characters import DIGIT, shape
from qvft.evaluation.metrics.ptb_rules import RULES, SYMBOLS

DROPPED = frozenset({"''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"})

# A blank joins what stands on its two sides only where there is a digit (`1 1/2`, `No. 5`, a
# telephone number) or an opening angle bracket, or between a letter with a full stop and a capital.
_DIGIT_OR_ANGLE = re.compile(rf"[0-9{DIGIT}<]")
_INITIAL = re.compile(r"(?<![\w.])[A-Za-z]\. +[A-Z]")
_DIGIT = re.compile(rf"[0-9{DIGIT}]")
_STOP_BEFORE_CAPITAL_OR_STOP = re.compile(r"\. +[A-Z.]")
# What the lexer sees after the text: a line's end.
_END = "\n\n"
_PLAIN_WORD = re.compile(r"[a-z]+(?=[,.?!;]?[ \n])")
_SIGMA_WORDS = re.compile(r"([!?@/:&+=#]|-(?=\d))")
_ASSIMILATED = frozenset({"cannot", "gonna", "gotta", "wanna", "lemme", "gimme"})
DROPPED_SHAPES = "\n\v\f\x00\x01\u2010\u066b"
_CACHE_LIMIT = 1 << 18


class _Cache(dict[str, tuple[str, ...]]):
    """Tokens of texts seen before; what is missing is lexed and kept while there is room."""

    def __missing__(self, text: str) -> tuple[str, ...]:
        tokens = tuple(token for token in ptb_tokens(text) if token not in DROPPED)
        if len(self) < _CACHE_LIMIT:
            self[text] = tokens
        return tokens


_cache = _Cache()


def tokenize(text: str) -> list[str]:
    """Lower-cased tokens of one caption, without the toolkit's list of punctuation."""
    return list(chain.from_iterable(map(_cache.__getitem__, _pieces(text.replace("\n", " ")))))


def _pieces(text: str) -> list[str]:
    """Parts of a text that are lexed by themselves: words, save where a blank may join them."""
    shapes = shape(text)
    if not _DIGIT_OR_ANGLE.search(shapes):
        return [text] if ". " in text and _INITIAL.search(shapes) else text.split(" ")
    chunks = text.split(" ")
    if "<" in text or _STOP_BEFORE_CAPITAL_OR_STOP.search(shapes) or "" in chunks:
        return [text]
    pieces: list[str] = []
    numeric = False
    for chunk, chunk_shapes in zip(chunks, shapes.split(" "), strict=True):
        before, numeric = numeric, _DIGIT.search(chunk_shapes) is not None
        if numeric and pieces and (before or "." in pieces[-1]):
            pieces[-1] += " " + chunk
        else:
            pieces.append(chunk)
    return pieces


def tokenize_all(texts: Iterable[str]) -> list[list[str]]:
    """`tokenize` of every text, in order."""
    return [tokenize(text) for text in texts]


def ptb_tokens(text: str) -> list[str]:
    """Lower-cased tokens of one caption with all punctuation still in."""
    shapes = shape(text) + _END
    tokens: list[str] = []
    position, end = 0, len(text)
    while position < end:
        plain = _PLAIN_WORD.match(shapes, position)
        if plain and plain.group() not in _ASSIMILATED and not shapes.startswith(".", plain.end()):
            tokens.append(plain.group())
            position = plain.end()
            continue
        stop, written = _longest(text, shapes, position)
        tokens += written
        position = stop
    return tokens


def _longest(text: str, shapes: str, position: int) -> tuple[int, list[str]]:
    """End of the longest token at `position`, and what is written for it."""
    reach, stop, write = position, position, None
    for pattern, rule_write in RULES:
        match = pattern.match(shapes, position)
        if match and match.end() > reach:
            reach, write = match.end(), rule_write
            stop = match.end(1) if pattern.groups else reach
    if write is None:
        character = text[position]
        if shapes[position] in DROPPED_SHAPES:
            return position + 1, []
        return position + 1, [_lower(SYMBOLS.get(character, character))]
    return stop, [_lower(token) for token in write(text[position:stop])]


def _lower(token: str) -> str:
    """The token lower-cased as Java does: sigma is final after letters that have case, and before none.

    Python takes a hyphen for the end of a word there, Java does not.
    """
    if "\u03a3" not in token:
        return token.lower()
    lowered = []
    for part in _SIGMA_WORDS.split(token):
        cased = [place for place, letter in enumerate(part) if letter.lower() != letter.upper()]
        final = cased[-1] if len(cased) > 1 and part[cased[-1]] == "\u03a3" else -1
        lowered += [
            "\u03c2" if place == final else "\u03c3" if letter == "\u03a3" else letter.lower()
            for place, letter in enumerate(part)
        ]
    return "".join(lowered)
