"""Lists of data sources in a recipe: what does not go together."""

from __future__ import annotations

from typing import Any


def require_sources(data: Any) -> None:
    """Checks lists of sources, weights and the mixing temperature.

    Args:
        data: a `recipe.data.Data`, which is made of what this file checks.

    Raises:
        ValueError: some do not fit; pydantic makes an error of it.
    """
    train, others = dict(data.sources("train")), dict(data.sources("eval"))
    for key, source in {**train, **others}.items():
        if source.stream and "." in key:
            raise ValueError(
                f"data.{key}.stream: a stream has no known size and cannot be mixed with other "
                "sources; remove it, or name this source alone"
            )
    for key, source in others.items():
        for name in ("weight", "answers"):
            if getattr(source, name) != type(source).model_fields[name].default:
                raise ValueError(f"data.{key}.{name} is for training; remove it")
    weighted = [key for key, source in train.items() if source.weight is not None]
    if weighted and len(weighted) < len(train):
        key = next(key for key in train if key not in weighted)
        raise ValueError(
            f"data.{key}.weight is not set, and data.{weighted[0]}.weight is; set all or none"
        )
    if data.lists("train") and weighted and data.mixing_temperature is not None:
        raise ValueError(f"data.mixing_temperature and data.{weighted[0]}.weight; set one of them")
