"""Manifest of an adapter folder: required fields and their types.

Does not import torch, unless a QVision's manifest is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from qvft.adapters.fingerprints import MANIFEST, READ
from qvft.errors import CheckpointError

FORMAT = 1
_OF_OLD_QVISION = "qformer.text_reader."
"""Weight name that only QVision's Q-Former of qvft 0.1.0 has."""


class _Entry(BaseModel):
    """Manifest entry of a weight."""

    shape: list[int]
    dtype: str


class _Alignment(BaseModel):
    objectives: list
    tokenizer: str
    max_text_tokens: int
    vocab_size: int
    pad_id: int
    positions: int
    embedding_width: int
    text_generation: bool
    weights: dict[str, _Entry]


class _Manifest(BaseModel):
    """Fields that qvft reads; others are ignored."""

    base_id: str
    base_weights_sha256: str
    family: str
    recipe_sha256: str
    data_sha256: dict
    bridge: dict[str, _Entry]
    objectives: dict[str, _Entry] = Field(default_factory=dict)
    alignment: _Alignment = Field(default=None)  # type: ignore[assignment]  # absent, never null
    files: dict[Literal[READ], Any] = Field(default_factory=dict)  # type: ignore[valid-type]


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an adapter folder.

    Raises:
        CheckpointError: there is none, it is damaged, or of a later version.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"no {MANIFEST}", where=str(folder), expected="an adapter folder of qvft.train"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "msg", None) or str(error)
        raise CheckpointError(f"damaged: {reason}", where=str(path)) from error
    require_form(manifest, where=str(path))
    return manifest


def alignment_entry(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Manifest entry of the alignment heads: `Alignment.facts` and their `weights`.

    Raises:
        CheckpointError: there are none.
    """
    if "alignment" not in manifest:
        raise CheckpointError(
            "has no alignment heads",
            where=str(folder),
            expected="a run with itc, itm or itg among its objectives",
        )
    return manifest["alignment"]


def require_form(manifest: Any, *, where: str) -> None:
    """Validates a parsed manifest; unused fields may be anything.

    Raises:
        CheckpointError: another format, a missing field or wrong type, or `files` names something
            that is not a file of an adapter folder.
    """
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        later = isinstance(found, int) and found > FORMAT
        raise CheckpointError(
            f"format {str(found)[:40]}",
            where=where,
            expected=f"format {FORMAT}",
            do="it is of a later qvft: update qvft" if later else None,
        )
    require_fields(manifest, _Manifest, where=where)
    if any(name.startswith(_OF_OLD_QVISION) for name in manifest["bridge"]):
        from qvft.models.qvision.configuration import OLD_FUNCTION

        raise CheckpointError(OLD_FUNCTION, where=where)


def require_fields(content: Any, model: type[BaseModel], *, where: str) -> None:
    """Validates parsed JSON strictly against a pydantic model.

    Raises:
        CheckpointError: invalid; the first invalid field is named.
    """
    try:
        model.model_validate(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part)[:80] for part in first["loc"] if part != "[key]")
        missing = first["type"] == "missing"
        raise CheckpointError(
            f"no `{name}`" if missing else f"`{name}` is {str(first['input'])[:40]!r}",
            where=where,
            expected="this field" if missing else first["msg"].removeprefix("Input should be "),
            do="copy the folder again",
        ) from None
