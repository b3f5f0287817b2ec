"""Finds which user settings a library refuses, by leaving them out one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from qvft.disk import disk_failure
from qvft.errors import QvftError, RecipeError, first_line

Attempt = Callable[[Mapping[str, Any]], object]


def require_accepted(
    settings: Mapping[str, Any], attempt: Attempt, *, key: Callable[[str], str]
) -> None:
    """Tries a user's settings with a library.

    Raises:
        RecipeError: `attempt` fails with the settings and succeeds without some of them.
        Exception: it fails without any of them too; then the fault is not the user's.
    """
    try:
        attempt(settings)
    except Exception as error:
        found = refusal(error, settings, attempt, key=key)
        if found is None:
            raise
        raise found from error


def refusal(
    error: Exception, settings: Mapping[str, Any], attempt: Attempt, *, key: Callable[[str], str]
) -> RecipeError | None:
    """Error for an exception raised by `attempt`; None if no setting is the cause."""
    if isinstance(error, QvftError | MemoryError) or disk_failure(error) is not None:
        return None
    refused = [
        name
        for name in settings
        if _passes(attempt, {other: settings[other] for other in settings if other != name})
    ]
    if not refused:
        if not settings or not _passes(attempt, {}):
            return None
        refused = list(settings)
    return RecipeError(
        f"transformers refuses {', '.join(repr(settings[name]) for name in refused)} "
        f"({first_line(error)})",
        where=" and ".join(key(name) for name in refused),
        do="correct or remove it" if len(refused) == 1 else "remove one of them",
    )


def _passes(attempt: Attempt, settings: Mapping[str, Any]) -> bool:
    try:
        attempt(settings)
    except Exception:
        return False
    return True
