"""In-memory training and evaluation data from Python, instead of a recipe's files.

A recipe, and so the lock of its run, says `format: memory`; the samples are where the caller holds
them, and whatever reads the recipe's data within `data_in_memory` finds them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from qvft.data.sample import Sample
from qvft.errors import RecipeError
from qvft.recipe.data import Source
from qvft.recipe.schema import Recipe

MEMORY = "memory"
"""What a recipe calls the format of such data."""

_KEPT = ("limit", "texts", "captions_per_image")
"""Keys of a source that say something about data in memory too; and `name`, unless it is that of
the files whose place is taken."""

_GIVEN: ContextVar[Mapping[str, list[Sample]] | None] = ContextVar("given", default=None)


@contextmanager
def data_in_memory(samples: Mapping[str, list[Sample]]) -> Iterator[None]:
    """Lets the recipe's data of format `memory` be these samples while the block runs.

    Args:
        samples: by `train` and `eval`.
    """
    token = _GIVEN.set(samples)
    try:
        yield
    finally:
        _GIVEN.reset(token)


def given_samples(which: str) -> list[Sample]:
    """The samples given as `train` or `eval`.

    Raises:
        RecipeError: none are at hand, as in another process than the one that trained.
    """
    given = _GIVEN.get() or {}
    if which not in given:
        raise RecipeError(
            "was given in memory, from Python, and is not at hand here",
            where=f"data.{which}",
            do=f"name a file that holds it: {where_it_lies(which, MEMORY)}; or give it again from "
            f"Python",
        )
    return given[which]


def where_it_lies(which: str, format: str) -> str:
    """The overrides that name other data for `train` or `eval`, whose format was `format`."""
    path = f"data.{which}.path=YOUR_DATA"
    return f"data.{which}.format=jsonl {path}" if format == MEMORY else path


def with_given(recipe: Recipe, given: Mapping[str, object]) -> Recipe:
    """The recipe whose `train` or `eval` data, where `given` has them, are in memory.

    Evaluation data that the recipe leaves to be filled in, as recipes to copy do, is none then.
    """
    changed: dict[str, Source | None] = {
        which: memory_source(getattr(recipe.data, which)) for which in given
    }
    watched = recipe.data.eval
    if "train" in given and watched is not None and watched.format == "jsonl" and not watched.path:
        changed.setdefault("eval", None)
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=changed)})


def memory_source(source: Source | None) -> Source:
    """The source of data in memory that takes the place of `source`."""
    if source is None:
        return Source(format=MEMORY)
    name = source.name if source.path is None else None
    return Source(format=MEMORY, name=name, **source.model_dump(include=set(_KEPT)))
