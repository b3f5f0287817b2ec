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
    """A character, with the number and ids of its rows.

    Attributes:
        character: the character.
        name: Unicode name and code point.
        tokens: number of tokens of the character alone.
        ids: ids of the rows; for costly characters the first LISTED.
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
    """Token count of each distinct text, as it occurs inside a row (after a space), without special
    tokens.
    """
    different = list(dict.fromkeys(one.text for one in texts))
    counts: dict[str, int] = {}
    for start in range(0, len(different), _BATCH):
        batch = different[start : start + _BATCH]
        for text, ids in zip(batch, _encode(tokenizer, batch), strict=True):
            counts[text] = len(ids)
    return counts


def spelling(texts: Sequence[Text], tokenizer: Any, tokens: dict[str, int]) -> Spelling:
    """Tokenizer coverage of every character that occurs.

    Args:
        texts: texts of a split.
        tokenizer: the decoder's.
        tokens: `token_counts` of the texts.
    """
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

    foreign = {c for c in present if _is_other_script(c)}
    other = [one.text for one in texts if not foreign.isdisjoint(one.text)]
    latin = [one.text for one in texts if foreign.isdisjoint(one.text)]
    return Spelling(
        lost=described(lost),
        costly=described(costly, listed=LISTED),
        broken=described(broken),
        lost_rows=sum(not lost.isdisjoint(characters) for characters in by_row.values()),
        costly_rows=sum(not costly.isdisjoint(characters) for characters in by_row.values()),
        broken_rows=sum(not broken.isdisjoint(characters) for characters in by_row.values()),
        other_script_rows=sum(not foreign.isdisjoint(found) for found in by_row.values()),
        other_script_tokens_per_character=_price(other, tokens),
        latin_tokens_per_character=_price(latin, tokens),
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
    back = tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)
    return back.strip() != character


def _is_other_script(character: str) -> bool:
    """Whether a character is a non-Latin letter (Greek letters as in `μm` count)."""
    return character.isalpha() and "LATIN" not in unicodedata.name(character, "")


def _name(character: str) -> str:
    return f"{unicodedata.name(character, 'without a name')} (U+{ord(character):04X})"


def _price(texts: Sequence[str], tokens: dict[str, int]) -> float | None:
    characters = sum(len(text) for text in texts)
    return sum(tokens[text] for text in texts) / characters if characters else None
