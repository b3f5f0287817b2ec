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

from qvft.evaluation.metrics.ptb_rules import BLANKS, RULES, SYMBOLS

DROPPED = frozenset({"''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"})

# A blank joins what stands on its two sides only where there is a digit (`1 1/2`, `No. 5`, a
# telephone number) or an opening angle bracket, or between a letter with a full stop and a capital.
_DIGIT_OR_ANGLE = re.compile(r"[\d<]")
_INITIAL = re.compile(r"(?<![\w.])[A-Za-z]\. +[A-Z]")
_DIGIT = re.compile(r"\d")
_STOP_BEFORE_CAPITAL_OR_STOP = re.compile(r"\. +[A-Z.]")
_PLAIN_WORD = re.compile(r"[a-z]+(?=[ ,.?!;]?(?:\s|$))")
_ASSIMILATED = frozenset({"cannot", "gonna", "gotta", "wanna", "lemme", "gimme"})
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
    return list(chain.from_iterable(map(_cache.__getitem__, _pieces(text))))


def _pieces(text: str) -> list[str]:
    """Parts of a text that are lexed by themselves: words, save where a blank may join them."""
    chunks = text.split()
    if not _DIGIT_OR_ANGLE.search(text):
        return [text] if ". " in text and _INITIAL.search(text) else chunks
    if "<" in text or _STOP_BEFORE_CAPITAL_OR_STOP.search(text) or " ".join(chunks) != text:
        return [text]
    pieces: list[str] = []
    numeric = False
    for chunk in chunks:
        before, numeric = numeric, _DIGIT.search(chunk) is not None
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
    text = BLANKS.sub(" ", text).replace("\u00ad", "")
    tokens: list[str] = []
    position, end = 0, len(text)
    while position < end:
        if text[position] == " ":
            position += 1
            continue
        plain = _PLAIN_WORD.match(text, position)
        if plain and plain.group() not in _ASSIMILATED and not text.startswith(".", plain.end()):
            tokens.append(plain.group())
            position = plain.end()
            continue
        stop, written = _longest(text, position)
        tokens += written
        position = stop
    return tokens


def _longest(text: str, position: int) -> tuple[int, list[str]]:
    """End of the longest token at `position`, and what is written for it."""
    reach, stop, write = position, position, None
    for pattern, rule_write in RULES:
        match = pattern.match(text, position)
        if match and match.end() > reach:
            reach, write = match.end(), rule_write
            stop = match.end(1) if pattern.groups else reach
    if write is None:
        character = text[position]
        written = SYMBOLS.get(character, character).lower()
        return position + 1, [written] if written else []
    return stop, [token.lower() for token in write(text[position:stop])]
