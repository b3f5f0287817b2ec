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
    """Settings of sequence packing for a model family.

    Attributes:
        shares: whether a common prefix of an image's rows is stored once.
        budget: maximum tokens of a packed row.
        row_per_owner: one packed row per owner, without a shared prefix: for an encoder-decoder,
            where the packed row of a prompt attends to that prompt.
    """

    shares: bool
    budget: int
    row_per_owner: bool = False

    def __call__(self, rows: Sequence[Sequence[int]], owners: Sequence[int]) -> dict[str, Tensor]:
        """`packed` for rows of tokens and their images or prompts; empty if padding needs less.

        It can with `row_per_owner`, if the prompts have different numbers of rows.
        """
        if not (self.shares or self.row_per_owner):
            owners = range(len(rows))
        found = packed(rows, owners, budget=self.budget, row_per_owner=self.row_per_owner)
        padded = len(rows) * max(map(len, rows))
        return {} if self.row_per_owner and found["packed_source"].numel() > padded else found


def packed(
    rows: Sequence[Sequence[int]],
    owners: Sequence[int],
    *,
    budget: int,
    row_per_owner: bool = False,
) -> dict[str, Tensor]:
    """Packs rows of tokens: positions of each token in packed rows.

    The common prefix of an owner's rows (visual prefix and common first words) is stored once,
    followed by the rest of each row; then come the next owner's rows, up to the budget. With the
    attention mask of `models.packed`, each token gets the same result as in a separate row.

    Args:
        rows: token ids.
        owners: owner (image) of each row; only rows of the same owner share a prefix.
        budget: maximum tokens of a packed row; if a group is longer, the width of the longest.
        row_per_owner: one packed row per owner, in order, without a shared prefix.

    Returns, all long:
        packed_source (R, K): index of the token at that position, b * L + l; 0 at padding.
        packed_positions (R, K): position id in its own row.
        packed_owner (R, K): its owner; -1 at padding.
        packed_text (R, K): its row; -1 if shared by all rows of its owner.
        packed_place (B, L): packed index of the token, r * K + k; 0 at padding.
    """
    groups: dict[int, list[int]] = {}
    for row, owner in enumerate(owners):
        groups.setdefault(owner, []).append(row)
    shared = dict.fromkeys(groups, 0)
    if not row_per_owner:
        shared = {owner: _common(rows, members) for owner, members in groups.items()}
    lengths = {
        owner: shared[owner] + sum(len(rows[row]) - shared[owner] for row in members)
        for owner, members in groups.items()
    }
    bins = [[owner] for owner in groups]
    if not row_per_owner:
        bins = _assigned(lengths, max(budget, *lengths.values()))
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
    """Length of the rows' common prefix; 0 for a single row."""
    if len(members) < 2:
        return 0
    length = 0
    for column in zip(*(rows[row] for row in members), strict=False):
        if any(token != column[0] for token in column):
            break
        length += 1
    return length


def _assigned(lengths: dict[int, int], capacity: int) -> list[list[int]]:
    """Owners by packed row: as few rows as first-fit decreasing finds, evenly filled."""
    fitted = _first_fit(lengths, capacity)
    even: list[list[int]] = [[] for _ in fitted]
    taken = [0] * len(fitted)
    for owner in sorted(lengths, key=lambda owner: -lengths[owner]):
        emptiest = taken.index(min(taken))
        even[emptiest].append(owner)
        taken[emptiest] += lengths[owner]
    return even if max(taken) <= capacity else fitted


def _first_fit(lengths: dict[int, int], capacity: int) -> list[list[int]]:
    """First-fit decreasing bin packing."""
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
    """Writes an owner's rows into a packed row from column `start`; returns the next column."""
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
