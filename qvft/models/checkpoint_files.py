"""Finds and loads parts of a checkpoint in a folder or on the hub; failures are `ModelError`s."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import transformers

from qvft.errors import ModelError
from qvft.models.model_path import TINY_ID, names_folder


def checkpoint_file(location: str, name: str, revision: str | None = None) -> Path | None:
    """A file of a folder or hub checkpoint (downloaded if missing); None if there is none."""
    if Path(location).is_dir():
        path = Path(location) / name
        return path if path.is_file() else None
    try:
        found = transformers.utils.cached_file(location, name, revision=revision)
    except (OSError, ValueError):
        return None
    return Path(found) if found else None


def load_part(
    auto: Any,
    location: str,
    *,
    where: str | None = None,
    expected: str = "a complete checkpoint",
    do: str | None = None,
    **options: Any,
) -> Any:
    """Result of `auto.from_pretrained(location, **options)`.

    Args:
        auto: an Auto class, a processor or a configuration class.
        where, expected, do: parts of the message; `where` is the location unless given.

    Raises:
        ModelError: it cannot be loaded.
    """
    try:
        return auto.from_pretrained(location, **options)
    except Exception as error:  # damaged files can raise nearly anything
        raise ModelError(
            first_line(error), where=where or location, expected=expected, do=do
        ) from error


def not_found(model_id: str, error: Exception, *, where: str = "model.id") -> ModelError:
    """The error for a checkpoint that cannot be loaded.

    Args:
        where: the recipe key or option that names it.
    """
    where = f"{where}={model_id}"
    if Path(model_id).exists():
        return ModelError(first_line(error), where=where, expected="a complete checkpoint folder")
    if names_folder(model_id):
        return ModelError("no such folder", where=where)
    return ModelError(
        "neither a folder here nor found on the hub or in its local cache",
        where=where,
        expected="a folder, or a hub id",
        do=f"where there is a network, run `hf download {model_id}` and copy the folder; "
        f"{TINY_ID} is bundled and needs none ({first_line(error)})",
    )


def first_line(error: Exception) -> str:
    """First line of an exception's message."""
    return str(error).strip().split("\n")[0]


def refuse_weights(
    kind: str, keys: Collection[str], *, where: str, expected: str | None = None
) -> None:
    """Raises ModelError that names the first of these weights, if there are any.

    Args:
        kind: what is wrong with them: `missing`, `unexpected` or `ill-sized`.
    """
    if keys:
        listed = ", ".join(sorted(keys)[:3]) + (", ..." if len(keys) > 3 else "")
        raise ModelError(f"{len(keys)} {kind} weights: {listed}", where=where, expected=expected)
