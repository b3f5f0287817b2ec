"""Streaming datasets: samples read pass by pass, and the shuffle buffer of their rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Protocol, TypeVar

from qvft.data.rows import Row, training_rows
from qvft.data.sample import Sample
from qvft.errors import DataError

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """What one process takes of one pass over the data.

    Attributes:
        number: of the pass, from 0.
        seed: of the order of shards; with the number it gives the same one in all processes.
        rank, world: which of how many parts; together they are the whole pass, each record once.
        shuffled: whether shards come in an order drawn for the pass.
    """

    number: int
    seed: int
    rank: int
    world: int
    shuffled: bool = True


class Stream(Protocol):
    """Data larger than memory."""

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of what can be told without reading the data."""
        ...

    def samples(self, part: Part) -> Iterator[Sample | DataError]:
        """A part of a pass, record by record; a broken record comes as its error."""
        ...


def row_groups(sample: Sample, size: int, rng: Random, *, texts: str) -> Iterator[list[Row]]:
    """A sample's training rows, shuffled and cut into groups that stay together in a batch."""
    rows = training_rows([sample], texts=texts)
    rng.shuffle(rows)
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def buffered(items: Iterable[T], size: int, rng: Random) -> Iterator[T]:
    """All items, each drawn from the `size` that are held at the time.

    Of a kind with the buffer of `datasets`, which does not say what it holds, so that a run cannot
    go on with the same order from its state; this one is filled again by its seed.
    """
    held: list[T] = []
    for item in items:
        if len(held) < size:
            held.append(item)
            continue
        place = rng.randrange(size)
        drawn, held[place] = held[place], item
        yield drawn
    rng.shuffle(held)
    yield from held
