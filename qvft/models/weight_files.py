"""Weight files of a base checkpoint, and the hash that identifies its weights."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

from qvft.errors import ModelError
from qvft.files import sha256_file
from qvft.json_files import sha256_json
from qvft.models.base_checkpoint import BaseCheckpoint
from qvft.models.checkpoint_files import checkpoint_file
from qvft.models.checkpoint_safety import INDEX, shard_names
from qvft.models.qvision.published import published_files


def weight_files(base: BaseCheckpoint) -> list[Path]:
    """The safetensors files of a base, sorted by name; downloads those of a hub id.

    Raises:
        ModelError: there are none.
    """
    if base.graft is not None:
        return base.graft.files
    if base.published:
        return sorted(published_files(base.location, base.revision).values())
    if base.decoder is not None:
        language = replace(
            base, location=base.decoder, revision=base.decoder_revision, decoder=None
        )
        return [*weight_files(replace(base, decoder=None)), *weight_files(language)]
    folder = Path(base.location)
    files = sorted(folder.glob("*.safetensors") if folder.is_dir() else _hub_files(base))
    if not files:
        raise ModelError(
            "no safetensors weights", where=base.id, expected="a checkpoint in safetensors"
        )
    return files


def _hub_files(base: BaseCheckpoint) -> list[Path]:
    """A hub checkpoint's weight files in the local cache, downloaded if missing."""
    index = checkpoint_file(base.location, INDEX, base.revision)
    names = ["model.safetensors"] if index is None else shard_names(index)
    paths = (checkpoint_file(base.location, name, base.revision) for name in names)
    return [path for path in paths if path is not None]


@functools.lru_cache(maxsize=8)
def _content_hash(path: Path, _size_bytes: int, _modified_ns: int) -> str:
    """SHA-256 of a weight file; cached, since files are several GB."""
    return sha256_file(path)


def weights_hash(base: BaseCheckpoint) -> str:
    """Hex SHA-256 that identifies the base's weights, by the content of its safetensors files."""
    hashes = {}
    for number, file in enumerate(weight_files(base)):
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
