"""Sequence packing: rows of tokens share one sequence, and a common prefix is stored once.

Shape letters: B rows, L longest row, R packed rows, K longest packed row.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapreplace
from operator import itemgetter

import torch
from torch import Tensor

SHARED_PREFIX = -1
WORTH = 0.9  # of the operations, at most, for a layout with more prefixes
KEYS = ("source", "positions", "owner", "text", "place")


@dataclass(frozen=True)
class Packer:
    """Settings of sequence packing for a model family.

    Attributes:
        shares: whether a common prefix of an image's rows is stored once.
        budget: tokens up to which a packed row is filled, or twice as many if that costs less.
        most: maximum tokens of a packed row, unless a row is longer.
        row_per_owner: one packed row per owner, without a shared prefix: for an encoder-decoder,
            where the packed row of a prompt attends to that prompt.
    """

    shares: bool
    budget: int
    most: int = sys.maxsize
    row_per_owner: bool = False

    def __call__(self, rows: Sequence[Sequence[int]], owners: Sequence[int]) -> dict[str, Tensor]:
        """`packed` for rows of tokens and their images or prompts; empty if padding needs less.

        It can with `row_per_owner`, if the prompts have different numbers of rows.
        """
        if not (self.shares or self.row_per_owner):
            owners = range(len(rows))
        limits = {"budget": self.budget, "most": self.most}
        found = packed(rows, owners, **limits, row_per_owner=self.row_per_owner)
        padded = len(rows) * max(map(len, rows))
        return {} if self.row_per_owner and found["packed_source"].numel() > padded else found


def packed(
    rows: Sequence[Sequence[int]],
    owners: Sequence[int],
    *,
    budget: int,
    most: int = sys.maxsize,
    row_per_owner: bool = False,
) -> dict[str, Tensor]:
    """Packs rows of tokens: positions of each token in packed rows.

    The common prefix of an owner's rows (visual prefix and common first words) is stored once,
    followed by the rest of each row; then come the next owner's rows. An owner with more or longer
    rows may be split into groups, each with the prefix. With the attention mask of `models.packed`,
    each token gets the same result as in a separate row.

    Args:
        rows: token ids.
        owners: owner (image) of each row; only rows of the same owner share a prefix.
        budget, most: as in `Packer`; a longer group counts as the budget.
        row_per_owner: one packed row per owner, in order, without a shared prefix.

    Returns, all long:
        packed_source (R, K): index of the token at that position, b * L + l; 0 at padding.
        packed_positions (R, K): position id in its own row.
        packed_owner (R, K): its group of an owner's rows, by number; -1 at padding.
        packed_text (R, K): its row; -1 if shared by all rows of its group.
        packed_place (B, L): packed index of the token, r * K + k; 0 at padding.
    """
    by_owner: dict[int, list[int]] = {}
    for row, owner in enumerate(owners):
        by_owner.setdefault(owner, []).append(row)
    groups = [*by_owner.values()]
    if row_per_owner:
        shared, bins = [0] * len(groups), [[number] for number in range(len(groups))]
        width = max(sum(len(rows[row]) for row in group) for group in groups)
    else:
        groups, shared, bins, width = _cheapest(rows, groups, budget, most)
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
        for number in inside:
            start = _write(found, rows, groups[number], shared[number], number, line, start)
    return {f"packed_{key}": found[key] for key in KEYS}


def _cheapest(
    rows: Sequence[Sequence[int]], groups: list[list[int]], budget: int, most: int
) -> tuple[list[list[int]], list[int], list[list[int]], int]:
    """Groups, their shared lengths, groups by packed row, and width: the fewest operations.

    Every packed row is as wide as the longest group. Where an image has more texts in the batch
    than others, or texts so long that attention to the other texts' masked positions costs more
    than another prefix, parts of its group in rows of their own cost less. Prefixes take memory, so
    a split must be worth it.
    """
    best = _laid_out(rows, groups, budget, most)
    lengths = sorted((_length(rows, group) for group in groups), reverse=True)
    if lengths[0] <= budget:
        return best
    longest = max(groups, key=lambda group: _length(rows, group))
    shared = _common(rows, longest)
    rest = lengths[0] - shared
    widths = {count: shared + math.ceil(rest / count) for count in range(1, len(longest) + 1)}
    parts = min(widths, key=lambda count: _cost(count, widths[count], budget))
    limits = {widths[parts], *(lengths[len(lengths) // part] for part in (10, 4, 2))} - {lengths[0]}
    for limit in sorted(limits, reverse=True):
        split = [one for group in groups for one in _split(rows, group, limit)]
        found = _laid_out(rows, split, budget, most)
        if _cost(len(found[2]), found[3], budget) < WORTH * _cost(len(best[2]), best[3], budget):
            best = found
    return best


def _cost(count: int, width: int, budget: int) -> int:
    """Operations of `count` packed rows, in a unit that does not matter.

    Per position and block of a frozen decoder of width W, 5 times the budget: forward and to its
    input, 12 W^2 weights twice; scores and sums of attention over `width` positions, three times.
    """
    return count * width * (20 * budget + width)


def _laid_out(
    rows: Sequence[Sequence[int]], groups: list[list[int]], budget: int, most: int
) -> tuple[list[list[int]], list[int], list[list[int]], int]:
    """As `_cheapest`, of these groups."""
    lengths = {number: _length(rows, group) for number, group in enumerate(groups)}
    bins, width = _assigned(lengths, budget, most)
    return groups, [_common(rows, group) for group in groups], bins, width


def _split(rows: Sequence[Sequence[int]], group: list[int], limit: int) -> list[list[int]]:
    """The fewest even parts of a group that are no longer than `limit`; single rows at last."""
    for size in sorted({-(-len(group) // count) for count in range(1, len(group) + 1)})[::-1]:
        parts = [group[start : start + size] for start in range(0, len(group), size)]
        if max(_length(rows, part) for part in parts) <= limit:
            break
    return parts


def _length(rows: Sequence[Sequence[int]], group: Sequence[int]) -> int:
    """Tokens of a group, those that its rows share counted once."""
    shared = _common(rows, group)
    return shared + sum(len(rows[row]) - shared for row in group)


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


def _assigned(lengths: dict[int, int], budget: int, most: int) -> tuple[list[list[int]], int]:
    """Groups by packed row, and the rows' width: the number of rows that costs least.

    Rows are as wide as the fullest. Where hardly two groups fit into the budget, rows of one group
    each have much padding, and wider ones less.
    """
    longest = max(lengths.values())
    widest = max(longest, min(2 * max(budget, longest), most))
    fewest = -(-sum(lengths.values()) // widest)
    found: list[tuple[int, list[list[int]], int]] = []
    for count in range(fewest, len(lengths) + 1):
        bins, width = _even(lengths, count)
        if width <= widest:
            found.append((_cost(count, width, budget), bins, width))
            if count >= 2 * fewest:
                break
    return min(found, key=itemgetter(0))[1:]


def _even(lengths: dict[int, int], count: int) -> tuple[list[list[int]], int]:
    """Groups by row, the longest first into the emptiest, and the tokens of the fullest row."""
    bins: list[list[int]] = [[] for _ in range(count)]
    taken = [(0, line) for line in range(count)]
    for group in sorted(lengths, key=lambda group: -lengths[group]):
        tokens, line = taken[0]
        bins[line].append(group)
        heapreplace(taken, (tokens + lengths[group], line))
    return bins, max(taken)[0]


def _write(
    found: dict[str, Tensor],
    rows: Sequence[Sequence[int]],
    members: Sequence[int],
    shared: int,
    group: int,
    line: int,
    start: int,
) -> int:
    """Writes a group's rows into a packed row from column `start`; returns the next column."""
    longest, width = found["place"].shape[1], found["source"].shape[1]

    def put(row: int, first: int, last: int, text: int, column: int) -> int:
        count = last - first
        span = slice(column, column + count)
        tokens = torch.arange(first, last)
        found["source"][line, span] = row * longest + tokens
        found["positions"][line, span] = tokens
        found["owner"][line, span] = group
        found["text"][line, span] = text
        return column + count

    column = put(members[0], 0, shared, SHARED_PREFIX, start)
    for row in members:
        found["place"][row, :shared] = line * width + start + torch.arange(shared)
        own = torch.arange(len(rows[row]) - shared)
        found["place"][row, shared : len(rows[row])] = line * width + column + own
        column = put(row, shared, len(rows[row]), row, column)
    return column
