"""Plain generators of damage, each a function of a `random.Random`: bytes, JSON values, YAML."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator
from typing import Any

Path = tuple[str | int, ...]

ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**63, 10**400, 0.0, 1e-4, -2.5, math.inf, -math.inf, math.nan,
    "", " ", "auto", "none", "1e-4", "yes", "x" * 300, "../../x", "/", "~", "a\0b", "\ud800",
    "\u202e", "\x1b[2J", "{question}", "{0.__class__}", "%s", "[red]", [], [[]], [None], ["a", 1],
    {}, {"a": {"b": {}}}, {"": None}, {"__class__": 1},
)  # fmt: skip
ODD_TEXTS = (
    b"!!python/object/apply:os.system ['true']",
    b"!!binary x", b"!!set {a, b}", b"&a [*a]", b"*b",
    b"2001-99-99", b"2001-01-01", b"0o17", b"0x_", b"12:30:45", b"<<: *x", b"? [a]\n: b", b"- - -",
    b"{[{[", b"]" * 5, b"'", b'"', b"\t", b"\r", b"\0", b"\xff\xfe", b"\xef\xbb\xbf",
    b"%YAML 9.9\n",
    b"---\n", b"...\n", b"|9\n", b"a: b: c", b"\xf0\x9f\x98\x80", b".nan", b"-.inf", b"1" * 5000,
    b"[" * 3000, b"\xc2\x85", b"\xe2\x80\xa8", b"~", b"=", b"@", b"`", b"!", b"!<", b"%",
)  # fmt: skip


def damaged_bytes(content: bytes, chance: random.Random) -> bytes:
    """Cut short, or with some bytes changed, lost, doubled or added."""
    if not content:
        return chance.choice(ODD_TEXTS)
    if chance.random() < 0.1:
        return content[: chance.randrange(len(content))]
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        place = chance.randrange(len(changed) + 1)
        end = min(len(changed), place + chance.choice((1, 1, 4, 30)))
        how = chance.random()
        if how < 0.25 and place < len(changed):
            changed[place] ^= 1 << chance.randrange(8)
        elif how < 0.45:
            del changed[place:end]
        elif how < 0.6:
            changed[place:place] = changed[place:end]
        elif how < 0.8:
            changed[place:end] = chance.choice(ODD_TEXTS)
        else:
            changed[place:place] = chance.choice(ODD_TEXTS)
    return bytes(changed)


def flipped_bit(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    """The path of everything inside a JSON value."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield (*path, key)
            yield from places(inner, (*path, key))


def changed_value(value: Any, chance: random.Random) -> Any:
    """A copy of a JSON value in which something is replaced, renamed, removed, added or moved."""
    changed = copy.deepcopy(value)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        found = list(places(changed))
        if not found:
            return chance.choice(ODD_VALUES)
        *above, key = chance.choice(found)
        holder = changed
        for step in above:
            holder = holder[step]
        how = chance.random()
        if how < 0.4:
            holder[key] = copy.deepcopy(chance.choice(ODD_VALUES))
        elif how < 0.55:
            del holder[key]
        elif how < 0.8 and isinstance(holder, dict):
            holder[misspelt(str(key), chance)] = holder.pop(key)
        elif isinstance(holder, dict):
            name = chance.choice(("x", "", misspelt(str(key), chance), "lora", "path", "arguments"))
            holder[name] = copy.deepcopy(chance.choice(ODD_VALUES))
        else:
            holder.insert(0, copy.deepcopy(chance.choice(ODD_VALUES)))
    return changed


def misspelt(word: str, chance: random.Random) -> str:
    """The word with a letter lost, doubled, in capitals or exchanged."""
    if not word:
        return "x"
    place = chance.randrange(len(word))
    letter = word[place]
    other = chance.choice(("", letter * 2, letter.upper(), "_", "é", " "))
    return word[:place] + other + word[place + 1 :]
