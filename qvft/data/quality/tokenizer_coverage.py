"""Tokenizer coverage: characters that the tokenizer loses, and characters of many tokens."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from qvft.data.quality.texts import Text

COSTLY_TOKENS = 3
LISTED = 5
_BATCH = 1000


@dataclass(frozen=True)
class Character:
    """A character, with the number and ids of its rows (of costly ones the first LISTED).

    `name` is its Unicode name and code point, `tokens` the number of tokens of it alone.
    """

    character: str
    name: str
    tokens: int
    rows: int
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Spelling:
    """Tokenizer coverage of the characters of a split.

    Attributes:
        lost: characters that become an unknown token or are not restored by decoding.
        costly: characters of COSTLY_TOKENS tokens or more, most frequent first.
        broken: control characters and U+FFFD, the replacement character.
        lost_rows, costly_rows, broken_rows: rows that have any such character.
        other_script_rows: rows with a non-Latin letter.
        other_script_tokens_per_character: over their texts; `latin_tokens_per_character` over the
            rest. None without such texts.
    """

    lost: tuple[Character, ...]
    costly: tuple[Character, ...]
    broken: tuple[Character, ...]
    lost_rows: int
    costly_rows: int
    broken_rows: int
    other_script_rows: int
    other_script_tokens_per_character: float | None
    latin_tokens_per_character: float | None


def token_counts(texts: Iterable[Text], tokenizer: Any) -> dict[str, int]:
    """Token count of each distinct text, as it occurs inside a row (after a space)."""
    different = list(dict.fromkeys(one.text for one in texts))
    counts: dict[str, int] = {}
    for start in range(0, len(different), _BATCH):
        batch = different[start : start + _BATCH]
        for text, ids in zip(batch, _encode(tokenizer, batch), strict=True):
            counts[text] = len(ids)
    return counts


def spelling(texts: Sequence[Text], tokenizer: Any, tokens: dict[str, int]) -> Spelling:
    """Tokenizer coverage of every character that occurs; `tokens` are the texts' `token_counts`."""
    rows: Counter[str] = Counter()
    by_row: dict[str, set[str]] = {}
    for one in texts:
        by_row.setdefault(one.row_id, set()).update(one.text)
    for characters in by_row.values():
        rows.update(characters)
    # Whitespace is collapsed before a text is encoded.
    present = sorted(character for character in rows if not character.isspace())
    encoded = dict(zip(present, _encode(tokenizer, present), strict=True))
    lost = {c for c, ids in encoded.items() if _is_lost(c, ids, tokenizer)}
    costly = {c for c, ids in encoded.items() if len(ids) >= COSTLY_TOKENS} - lost
    broken = {c for c in present if c == "\ufffd" or unicodedata.category(c) == "Cc"}

    def described(characters: set[str], *, listed: int | None = None) -> tuple[Character, ...]:
        ids: dict[str, list[str]] = {character: [] for character in characters}
        for row_id, held in by_row.items():
            for character in characters & held:
                if listed is None or len(ids[character]) < listed:
                    ids[character].append(row_id)
        ordered = sorted(characters, key=lambda c: (-rows[c], c))
        return tuple(
            Character(c, _name(c), len(encoded[c]), rows[c], tuple(ids[c])) for c in ordered
        )

    def count_rows(characters: set[str]) -> int:
        return sum(not characters.isdisjoint(present) for present in by_row.values())

    # Letters that are not Latin; Greek ones as in `μm` count.
    foreign = {c for c in present if c.isalpha() and "LATIN" not in unicodedata.name(c, "")}
    other = [one.text for one in texts if not foreign.isdisjoint(one.text)]
    latin = [one.text for one in texts if foreign.isdisjoint(one.text)]
    return Spelling(
        lost=described(lost),
        costly=described(costly, listed=LISTED),
        broken=described(broken),
        lost_rows=count_rows(lost),
        costly_rows=count_rows(costly),
        broken_rows=count_rows(broken),
        other_script_rows=count_rows(foreign),
        other_script_tokens_per_character=_tokens_per_character(other, tokens),
        latin_tokens_per_character=_tokens_per_character(latin, tokens),
    )


def _encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text after a space."""
    if not texts:
        return []
    return tokenizer(
        [" " + " ".join(text.split()) for text in texts],
        add_special_tokens=False,
        split_special_tokens=True,
        verbose=False,
    )["input_ids"]


def _is_lost(character: str, ids: Sequence[int], tokenizer: Any) -> bool:
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
        return True
    return tokenizer.decode(list(ids), clean_up_tokenization_spaces=False).strip() != character


def _name(character: str) -> str:
    return f"{unicodedata.name(character, 'without a name')} (U+{ord(character):04X})"


def _tokens_per_character(texts: Sequence[str], tokens: dict[str, int]) -> float | None:
    characters = sum(len(text) for text in texts)
    return sum(tokens[text] for text in texts) / characters if characters else None
