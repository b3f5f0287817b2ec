"""In-memory training and evaluation data from Python, instead of a recipe's files.

The recipe and its lock file have `format: memory`; the samples are found inside `data_in_memory`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from qvft.data.sample import Sample
from qvft.errors import RecipeError
from qvft.recipe.schema import Recipe
from qvft.recipe.source import Source

MEMORY = "memory"
"""Format name of in-memory data in a recipe."""

_KEPT = ("limit", "texts", "captions_per_image", "prompt", "answers")
"""Keys of a source that also apply to in-memory data; and `name`, unless it is that of the replaced
files."""

_GIVEN: ContextVar[Mapping[str, list[Sample]] | None] = ContextVar("given", default=None)


@contextmanager
def data_in_memory(samples: Mapping[str, list[Sample]]) -> Iterator[None]:
    """Context manager: these samples, by `train` and `eval`, are the data of format `memory`."""
    token = _GIVEN.set(samples)
    try:
        yield
    finally:
        _GIVEN.reset(token)


def given_samples(which: str) -> list[Sample]:
    """The samples given as `train` or `eval`; raises RecipeError if there are none, as in another
    process than the one that trained.
    """
    given = _GIVEN.get() or {}
    if which not in given:
        raise RecipeError(
            "was given in memory, from Python, and is not available here",
            where=f"data.{which}",
            do=f"name a file that holds it: {path_override(which, MEMORY)}; or give it again from "
            f"Python",
        )
    return given[which]


def path_override(which: str, format: str) -> str:
    """Overrides that name other data for `train` or `eval`, whose format was `format`."""
    path = f"data.{which}.path=YOUR_DATA"
    return f"data.{which}.format=jsonl {path}" if format == MEMORY else path


def with_given(recipe: Recipe, given: Mapping[str, object]) -> Recipe:
    """The recipe with in-memory data as `train` or `eval`.

    Evaluation data that a template recipe leaves to be filled in is dropped.
    """
    replaced = {which: dict(recipe.data.sources(which)).get(which) for which in ("train", "eval")}
    changed: dict[str, Any] = {which: memory_source(replaced[which]) for which in given}
    source = replaced["eval"]
    if "train" in given and source is not None and source.format == "jsonl" and not source.path:
        changed.setdefault("eval", None)
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=changed)})


def memory_source(source: Source | None) -> Source:
    """Source of in-memory data that replaces `source`."""
    if source is None:
        return Source(format=MEMORY)
    name = source.name if source.path is None else None
    return Source(format=MEMORY, name=name, **source.model_dump(include=set(_KEPT)))
