"""Finds which user settings a library refuses, by leaving them out one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from qvft.disk import disk_failure
from qvft.errors import QvftError, RecipeError

Attempt = Callable[[Mapping[str, Any]], object]


def require_accepted(
    settings: Mapping[str, Any],
    attempt: Attempt,
    *,
    key: Callable[[str], str],
    library: str = "transformers",
) -> None:
    """Tries a user's settings with a library.

    Args:
        settings: names and values set by the user.
        attempt: runs the library call with some of them.
        key: maps a name to its recipe key, e.g. `train.arguments.optim`.
        library: name of the library.

    Raises:
        RecipeError: `attempt` fails with the settings and succeeds without some of them.
        Exception: it fails without any of them too; then the fault is not the user's.
    """
    try:
        attempt(settings)
    except Exception as error:
        found = refusal(error, settings, attempt, key=key, library=library)
        if found is None:
            raise
        raise found from error


def refusal(
    error: Exception,
    settings: Mapping[str, Any],
    attempt: Attempt,
    *,
    key: Callable[[str], str],
    library: str = "transformers",
) -> RecipeError | None:
    """Error for an exception raised by `attempt`; None if no setting is the cause.

    Arguments as `require_accepted`.
    """
    if isinstance(error, QvftError | MemoryError) or disk_failure(error) is not None:
        return None
    guilty = [name for name in settings if _passes(attempt, _without(settings, name))]
    if not guilty:
        if not settings or not _passes(attempt, {}):
            return None
        guilty = list(settings)
    values = [settings[name] for name in guilty]
    given = repr(values[0]) if len(values) == 1 else ", ".join(map(repr, values))
    return RecipeError(
        f"{library} refuses {given} ({first_line(error)})",
        where=" and ".join(key(name) for name in guilty),
        do="correct it or leave it out" if len(guilty) == 1 else "leave one of them out",
    )


def first_line(error: BaseException) -> str:
    """Message of an error, on one line; its class name if it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _without(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {other: value for other, value in settings.items() if other != name}


def _passes(attempt: Attempt, settings: Mapping[str, Any]) -> bool:
    try:
        attempt(settings)
    except Exception:
        return False
    return True
