"""Processes of a launcher, for tests: threads of this one, who hear each other as processes do."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any


class FakeProcesses:
    """Stands in the place of `qvft.models.distributed` for so many processes."""

    def __init__(self, world: int) -> None:
        self.world = world
        self._said: list[bytes] = [b""] * world
        self._barrier = threading.Barrier(world, timeout=60)
        self._rank = threading.local()

    def processes(self) -> SimpleNamespace:
        return SimpleNamespace(num_processes=self.world, process_index=self._rank.number)

    def all_gather_object(self, mine: Any) -> list[Any]:
        self._said[self._rank.number] = pickle.dumps(mine)
        self._barrier.wait()
        said = [pickle.loads(one) for one in self._said]
        self._barrier.wait()  # nobody says anything else before all have heard
        return said

    def run(self, work: Callable[[int], Any]) -> list[Any]:
        """What `work` gives of each rank, or the exception that it raised."""

        def one(rank: int) -> Any:
            self._rank.number = rank
            try:
                return work(rank)
            except Exception as error:
                return error

        with ThreadPoolExecutor(self.world) as pool:
            return list(pool.map(one, range(self.world)))
