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
    """One process's part of one pass over the data.

    Attributes:
        number: number of the pass, from 0.
        seed: seed of the order of shards, the same in all processes.
        rank, world: index and number of parts, which cover each record exactly once.
    """

    number: int
    seed: int
    rank: int
    world: int
    shuffled: bool = True


class Stream(Protocol):
    """A streaming dataset, larger than memory."""

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of what is known without reading the data."""

    def samples(self, part: Part) -> Iterator[Sample | DataError]:
        """A part of a pass, record by record; a broken record is yielded as its error."""


def row_groups(sample: Sample, size: int, rng: Random, *, texts: str) -> Iterator[list[Row]]:
    """A sample's training rows, shuffled and split into groups that stay together in a batch."""
    rows = training_rows([sample], texts=texts)
    rng.shuffle(rows)
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def buffered(items: Iterable[T], size: int, rng: Random) -> Iterator[T]:
    """Shuffles items through a buffer of `size`.

    Like the buffer of `datasets`, whose content is not saved, so that a run could not resume with
    the same order; this one is refilled deterministically from its seed.
    """
    buffer: list[T] = []
    for item in items:
        if len(buffer) < size:
            buffer.append(item)
            continue
        place = rng.randrange(size)
        drawn, buffer[place] = buffer[place], item
        yield drawn
    rng.shuffle(buffer)
    yield from buffer
