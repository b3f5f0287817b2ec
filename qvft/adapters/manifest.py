"""Manifest of an adapter folder: required fields with their types, and SHA-256 of its files.

The manifest has the hashes as `files: {name: SHA-256}`. They detect bit flips, incomplete copies
and mixed files of two runs, not deliberate changes of the manifest. Does not import torch, unless a
QVision's manifest is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from qvft.errors import CheckpointError
from qvft.files import sha256_file

FORMAT = 1
MANIFEST = "manifest.json"
READ = (
    "adapter_config.json", "adapter_model.safetensors", "bridge.safetensors",
    "alignment.safetensors", "objectives.safetensors",
)  # fmt: skip
"""Files read when an adapter is loaded, besides the manifest; no other is ever opened."""
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
    """The manifest of an adapter folder; fields that qvft does not read may be anything.

    Raises:
        CheckpointError: there is none, it is damaged, of another format, a field is missing or of
            the wrong type, or `files` names something that is not a file of an adapter folder.
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
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        later = isinstance(found, int) and found > FORMAT
        raise CheckpointError(
            f"format {str(found)[:40]}",
            where=str(path),
            expected=f"format {FORMAT}",
            do="it is of a later qvft: update qvft" if later else None,
        )
    require_fields(manifest, _Manifest, where=str(path))
    if any(name.startswith(_OF_OLD_QVISION) for name in manifest["bridge"]):
        from qvft.models.qvision.configuration import OLD_FUNCTION

        raise CheckpointError(OLD_FUNCTION, where=str(path))
    return manifest


def alignment_entry(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Manifest entry of the alignment heads; raises CheckpointError if there are none."""
    if "alignment" not in manifest:
        raise CheckpointError(
            "has no alignment heads",
            where=str(folder),
            expected="a run with itc, itm or itg among its objectives",
        )
    return manifest["alignment"]


def require_fields(content: Any, model: type[BaseModel], *, where: str) -> None:
    """Validates parsed JSON strictly; raises CheckpointError that names the first invalid field."""
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


def fingerprints(folder: Path) -> dict[str, str]:
    """SHA-256 by name of the existing files of `READ`."""
    return {name: sha256_file(folder / name) for name in READ if (folder / name).is_file()}


def require_untouched(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Raises CheckpointError unless an adapter folder's files have its manifest's hashes."""
    if "files" not in manifest:  # of an earlier version
        return
    expected, found = manifest["files"], fingerprints(folder)
    for name in READ:
        copy = "copy the whole folder again from where it was trained, or train again"
        if name in expected and name not in found:
            raise CheckpointError(f"no {name}", where=str(folder), do=copy)
        if name in found and name not in expected:
            raise CheckpointError(
                f"{name} is there and the manifest does not know it",
                where=str(folder),
                do="remove it: it is of another run",
            )
        if found.get(name) != expected.get(name):
            raise CheckpointError(
                "is not what was written: its hash is not the manifest's",
                where=str(folder / name),
                do=copy,
            )
