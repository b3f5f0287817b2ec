"""A reward function that differs between texts of any model, with trl's signature."""

from __future__ import annotations

from typing import Any


def remainder(completion_ids: list[list[int]], **columns: Any) -> list[float]:
    """A number of the first two tokens."""
    return [float(sum(ids[:2]) % 97) / 50 for ids in completion_ids]
