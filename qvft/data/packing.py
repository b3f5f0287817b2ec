"""Sequence packing: rows of tokens share one sequence, and a common prefix is stored once.

Shape letters: B rows, L longest row, R packed rows, K longest packed row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SHARED_PREFIX = -1
KEYS = ("source", "positions", "owner", "text", "place")


@dataclass(frozen=True)
class Packer:
    """How a family's rows are packed.

    Attributes:
        shares: rows of an image begin alike for the decoder, so that this stands once; otherwise
            every row stands whole.
        budget: tokens that a packed row is filled to.
    """

    shares: bool
    budget: int

    def __call__(self, rows: Sequence[Sequence[int]], images: Sequence[int]) -> dict[str, Tensor]:
        """What `packed` returns of rows of tokens, each with the image it is about."""
        return packed(rows, images if self.shares else range(len(rows)), budget=self.budget)


def packed(
    rows: Sequence[Sequence[int]], owners: Sequence[int], *, budget: int
) -> dict[str, Tensor]:
    """Where each token of separate rows stands when they are packed.

    Rows of one owner keep their common beginning once (the visual prefix, and as many words as all
    of them begin with), behind it what each goes on with; then come rows of the next owner, until
    the budget is reached. A model that gives equal states to equal beginnings, and looks from each
    token at its own row alone, computes for a token what it would in the row by itself.

    Args:
        rows: token ids.
        owners: for each row whose it is; rows share a beginning only with rows of their owner.
        budget: tokens of a packed row; where a group is longer, all are as wide as the longest.

    Returns, all long:
        packed_source (R, K): which token stands there, b * L + l; 0 at padding.
        packed_positions (R, K): its place in its own row.
        packed_owner (R, K): its owner; -1 at padding.
        packed_text (R, K): its row; -1 where it belongs to all rows of its owner.
        packed_place (B, L): where the token stands, r * K + k; 0 at padding.
    """
    groups: dict[int, list[int]] = {}
    for row, owner in enumerate(owners):
        groups.setdefault(owner, []).append(row)
    shared = {owner: _common(rows, members) for owner, members in groups.items()}
    lengths = {
        owner: shared[owner] + sum(len(rows[row]) - shared[owner] for row in members)
        for owner, members in groups.items()
    }
    bins = _filled(lengths, max(budget, *lengths.values()))
    width = max(sum(lengths[owner] for owner in owners) for owners in bins)
    longest = max(len(row) for row in rows)
    size = (len(bins), width)
    found = {
        "source": torch.zeros(size, dtype=torch.long),
        "positions": torch.zeros(size, dtype=torch.long),
        "owner": torch.full(size, SHARED_PREFIX),
        "text": torch.full(size, SHARED_PREFIX),
        "place": torch.zeros(len(rows), longest, dtype=torch.long),
    }
    for line, inside in enumerate(bins):
        start = 0
        for owner in inside:
            start = _write(found, rows, groups[owner], shared[owner], owner, line, start)
    return {f"packed_{key}": found[key] for key in KEYS}


def _common(rows: Sequence[Sequence[int]], members: Sequence[int]) -> int:
    """How many tokens all of these rows begin with; none where there is one row alone."""
    if len(members) < 2:
        return 0
    columns = zip(*(rows[row] for row in members), strict=False)
    length = 0
    for column in columns:
        if any(token != column[0] for token in column):
            break
        length += 1
    return length


def _filled(lengths: dict[int, int], capacity: int) -> list[list[int]]:
    """Owners by packed row: in as few rows as the first fit of the longest first finds, and in
    these evenly, so that rows are as wide as they need be and little padding is left.
    """
    fitted = _first_fit(lengths, capacity)
    even: list[list[int]] = [[] for _ in fitted]
    taken = [0] * len(fitted)
    for owner in sorted(lengths, key=lambda owner: -lengths[owner]):
        emptiest = taken.index(min(taken))
        even[emptiest].append(owner)
        taken[emptiest] += lengths[owner]
    return even if max(taken) <= capacity else fitted


def _first_fit(lengths: dict[int, int], capacity: int) -> list[list[int]]:
    """Owners by packed row: the longest first, each into the first row that has room."""
    bins: list[list[int]] = []
    room: list[int] = []
    for owner in sorted(lengths, key=lambda owner: -lengths[owner]):
        fits = next((at for at, free in enumerate(room) if free >= lengths[owner]), None)
        if fits is None:
            bins.append([])
            room.append(capacity)
            fits = len(bins) - 1
        bins[fits].append(owner)
        room[fits] -= lengths[owner]
    return bins


def _write(
    found: dict[str, Tensor],
    rows: Sequence[Sequence[int]],
    members: Sequence[int],
    shared: int,
    owner: int,
    line: int,
    start: int,
) -> int:
    """Puts an owner's rows into a packed row from column `start`; returns the next free column."""
    longest, width = found["place"].shape[1], found["source"].shape[1]

    def put(row: int, first: int, last: int, text: int, column: int) -> int:
        count = last - first
        span = slice(column, column + count)
        tokens = torch.arange(first, last)
        found["source"][line, span] = row * longest + tokens
        found["positions"][line, span] = tokens
        found["owner"][line, span] = owner
        found["text"][line, span] = text
        return column + count

    column = put(members[0], 0, shared, SHARED_PREFIX, start)
    for row in members:
        found["place"][row, :shared] = line * width + start + torch.arange(shared)
        own = torch.arange(len(rows[row]) - shared)
        found["place"][row, shared : len(rows[row])] = line * width + column + own
        column = put(row, shared, len(rows[row]), row, column)
    return column
