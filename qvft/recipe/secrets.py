"""Refuses secrets in a recipe, since lock files, manifests and reports copy it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from qvft.errors import RecipeError

_SECRET_KEY = re.compile(r"(^|_)(token|password|passwd|secret|api_key|apikey|secret_key)$", re.I)
_TEXT_TOKENS = {f"{name}_token" for name in ("stop", "bos", "eos", "pad", "unk")}
_SECRET_VARIABLE = re.compile(r"(TOKEN|PASSWORD|PASSWD|SECRET|API_KEY|ACCESS_KEY|SECRET_KEY)$")
_MIN_LENGTH = 8
"""Shorter values of variables are not searched for: they occur in words by chance."""

_FORMS = (
    ("a user and a password before the host", re.compile(r"://[^/\s@]*:[^/\s@]+@")),
    (
        "a key in its query",
        re.compile(r"[?&][\w-]*(token|sig|signature|secret|password|api_?key|credential)=", re.I),
    ),
    ("a Hugging Face token", re.compile(r"\bhf_[A-Za-z0-9]{20,}")),
    ("an AWS key", re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b")),
    ("a GitHub token", re.compile(r"\bgh[pousr]_[A-Za-z0-9]{30,}")),
    ("a private key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")),
)
"""Patterns of secrets. Source: the prefixes that the services publish for scanners."""


def refuse_secrets(content: Mapping[str, Any], *, where: str) -> None:
    """Raises RecipeError if a recipe contains a secret, by pattern or from the environment.

    The message names the key path, never the value.
    """
    known = _known()
    for path, text in _texts(content, ()):
        found = _found(path, text, known)
        if found is not None:
            raise RecipeError(
                f"holds {found}",
                where=f"{where}: {'.'.join(path)}",
                expected="no secret: recipe.lock.yaml and reports repeat a recipe",
                do="set it in the environment (HF_TOKEN, WANDB_API_KEY, AWS_...), where the "
                "libraries read it",
            )


def secret_in(text: str) -> str | None:
    """Kind of secret in a text, by pattern or from the environment; None for none."""
    return _found((), text, _known())


def _known() -> dict[str, str]:
    """Values of the environment's variables that hold secrets, by name."""
    return {
        name: value
        for name, value in os.environ.items()
        if _SECRET_VARIABLE.search(name) and len(value) >= _MIN_LENGTH
    }


def _found(path: Sequence[str], text: str, known: Mapping[str, str]) -> str | None:
    """Kind of secret in a text, None for none."""
    if text and any(_SECRET_KEY.search(key) and key not in _TEXT_TOKENS for key in path):
        return "a secret by its name"
    for name, value in known.items():
        if value in text:
            return f"the value of the environment variable {name}"
    return next((kind for kind, form in _FORMS if form.search(text)), None)


def _texts(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every text in nested mappings and lists, keys too, with its key path."""
    if isinstance(value, Mapping):
        yield from ((path, str(key)) for key in value)
    if isinstance(value, list | tuple):
        value = dict(enumerate(value))
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(inner, (*path, str(key)))
    elif isinstance(value, str):
        yield path, value
