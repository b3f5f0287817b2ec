"""Weight files of a base checkpoint, and the hash that identifies its weights."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from qvft.errors import ModelError
from qvft.files import sha256_file
from qvft.json_files import sha256_json
from qvft.models.base_checkpoint import BaseCheckpoint
from qvft.models.checkpoint_tensors import stored_files
from qvft.models.qvision.published import published_files


def weight_files(base: BaseCheckpoint) -> list[Path]:
    """The safetensors files of a base, sorted by name; downloads those of a hub id.

    Those of a model made from two checkpoints are the first one's, then the second one's.
    """
    if base.graft is not None:
        return [file for files in base.graft.files.values() for file in files]
    if base.published:
        return sorted(published_files(base.location, base.revision).values())
    if base.decoder is not None:
        language = replace(
            base, location=base.decoder, revision=base.decoder_revision, decoder=None
        )
        return [*weight_files(replace(base, decoder=None)), *weight_files(language)]
    folder = Path(base.location)
    if not folder.is_dir():
        return sorted(stored_files(base.location, base.revision, where=base.id))
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(
            "no safetensors weights", where=base.id, expected="a checkpoint in safetensors"
        )
    return files


@functools.lru_cache(maxsize=8)
def _content_hash(path: Path, _size_bytes: int, _modified_ns: int) -> str:
    """SHA-256 of a weight file; cached, since files are several GB."""
    return sha256_file(path)


def weights_hash(base: BaseCheckpoint, *, recorded: str | None = None) -> str:
    """Hex SHA-256 that identifies the base's weights, by the content of its safetensors files.

    It does not depend on where they are.

    Args:
        recorded: hash of a run. It is returned if it is these weights' as 0.1.0 computed it, which
            numbered the files of two checkpoints by the paths of their folders.
    """
    files = weight_files(base)
    found = _hash_of(base, files)
    if recorded not in (None, found) and base.graft is not None:
        swapped = [file for files in reversed(base.graft.files.values()) for file in files]
        if recorded == _hash_of(base, swapped):
            return recorded
    return found


def _hash_of(base: BaseCheckpoint, files: Sequence[Path]) -> str:
    """The hash with the files in this order."""
    hashes = {}
    for number, file in enumerate(files):
        status = file.stat()
        # Files of two checkpoints may have equal names.
        several = base.graft is not None or base.decoder is not None
        name = f"{number} {file.name}" if several else file.name
        hashes[name] = _content_hash(file, status.st_size, status.st_mtime_ns)
    if base.graft is not None:
        hashes["drawn"] = f"{base.graft.origins.summary()} {base.graft.seed}"
    if base.decoder is not None:
        hashes["drawn"] = f"Q-Former and marks {base.seed}"
    return sha256_json(hashes)
