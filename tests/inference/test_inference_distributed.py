"""Rows and chunks among processes: each once, an image's rows together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from fake_processes import FakeProcesses

from qvft.errors import ImageError
from qvft.inference import distributed as shares
from qvft.inference.distributed import chunks_shared, share

IMAGES = ["a", "a", "b", "c", "a", "d", "e", "e", "b"]


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_each_row_is_answered_by_one_process(world: int) -> None:
    shares = [share(IMAGES, rank=rank, world=world) for rank in range(world)]
    assert sorted(number for one in shares for number in one) == list(range(len(IMAGES)))


def test_rows_of_an_image_are_answered_by_one_process_in_order() -> None:
    assert share(IMAGES, rank=0, world=2) == [0, 1, 3, 4, 6, 7]
    assert share(IMAGES, rank=1, world=2) == [2, 5, 8]


def among(
    world: int, items: Sequence[int], monkeypatch: pytest.MonkeyPatch, *, broken: int | None = None
) -> tuple[list[Any], list[list[Sequence[int]]]]:
    """What each of the processes has of the sums of chunks of three, and the chunks it summed."""
    fake = FakeProcesses(world)
    monkeypatch.setattr(shares, "processes", fake.processes)
    monkeypatch.setattr(shares, "all_gather_object", fake.all_gather_object)
    worked: list[list[Sequence[int]]] = [[] for _ in range(world)]

    def sums(rank: int, chunks: Sequence[Sequence[int]]) -> Iterator[int]:
        for chunk in chunks:
            if broken in chunk:
                raise ImageError("broken", where=f"image {broken}")
            worked[rank].append(chunk)
            yield sum(chunk)

    found = fake.run(lambda rank: chunks_shared(items, lambda cut: sums(rank, cut), size=3))
    return found, worked


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_each_chunk_is_worked_on_once_and_all_have_what_is_found(
    world: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, worked = among(world, range(8), monkeypatch)
    assert found == [[0 + 1 + 2, 3 + 4 + 5, 6 + 7]] * world
    cut = [range(0, 3), range(3, 6), range(6, 8)]
    assert sorted(sum(worked, []), key=lambda chunk: chunk[0]) == cut


def test_of_no_items_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert among(2, [], monkeypatch)[0] == [[], []]


def test_an_image_that_one_process_cannot_use_is_told_to_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, _ = among(3, range(8), monkeypatch, broken=4)
    assert [str(one) for one in found] == [str(found[0])] * 3
    assert "image 4" in str(found[0])
