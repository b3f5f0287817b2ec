"""SHA-256 hashes of an adapter folder's files, to detect corruption on loading.

The manifest has them as `files: {name: SHA-256}`. They detect bit flips, incomplete copies and
mixed files of two runs, not deliberate changes of the manifest.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qvft.errors import CheckpointError
from qvft.files import sha256_file

MANIFEST = "manifest.json"
READ = (
    "adapter_config.json", "adapter_model.safetensors", "bridge.safetensors",
    "alignment.safetensors", "objectives.safetensors",
)  # fmt: skip
"""Files read when an adapter is loaded, besides the manifest; no other is ever opened."""


def fingerprints(folder: Path) -> dict[str, str]:
    """SHA-256 by name of the existing files of `READ`."""
    return {name: sha256_file(folder / name) for name in READ if (folder / name).is_file()}


def require_untouched(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Checks an adapter folder's files against the hashes in its manifest.

    A manifest of an earlier version has no hashes and is not checked.

    Raises:
        CheckpointError: a file is missing, unexpected, or changed.
    """
    if "files" not in manifest:
        return
    expected = manifest["files"]
    for name in READ:
        path = folder / name
        if not path.is_file():
            if name in expected:
                raise CheckpointError(f"no {name}", where=str(folder), do=_COPY)
        elif name not in expected:
            raise CheckpointError(
                f"{name} is there and the manifest does not know it",
                where=str(folder),
                do="remove it: it is of another run",
            )
        elif sha256_file(path) != expected[name]:
            raise CheckpointError(
                "is not what was written: its hash is not the manifest's",
                where=str(path),
                do=_COPY,
            )


_COPY = "copy the whole folder again from where it was trained, or train again"
