"""Unicode text normalisation: NFC, and words with their combining marks.

Bengali vowel signs, Thai tones, Arabic harakat and accents that Unicode cannot compose are
combining marks, separate characters that belong to the word.
"""

from __future__ import annotations

import unicodedata

# Unicode's combining marks lie in planes 0, 1 and 14; a test holds that none is missed.
_WHERE_MARKS_ARE = (*range(0x300, 0x20000), *range(0xE0100, 0xE01F0))
_MARKS = "".join(chr(c) for c in _WHERE_MARKS_ARE if unicodedata.category(chr(c))[0] == "M")
# Zero-width joiner and non-joiner: they shape letters within a word (Persian, Indic scripts).
_JOINERS = "\u200c\u200d"

RUN = rf"[^\W_](?:[^\W_]|[{_MARKS}{_JOINERS}])*"
"""As a regular expression: letters and digits of any script, each with its marks."""


def composed(text: str) -> str:
    """The text in Unicode NFC."""
    return unicodedata.normalize("NFC", text)
