"""Hashes of a run's trained weights and of images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from qvft.data.images.content_hash import content_id
from qvft.data.sample import Sample
from qvft.files import sha256_file

# Files of an adapter folder that determine outputs; not its manifest, which has the run's path.
_TRAINED = ("*.safetensors", "adapter_config.json")


def trained_files(folder: Path) -> dict[str, str]:
    """Hex SHA-256 of each trained file of an adapter folder, by name."""
    files = sorted(path for pattern in _TRAINED for path in folder.glob(pattern))
    return {path.name: sha256_file(path) for path in files}


def images_hash(samples: Sequence[Sample]) -> str | None:
    """Hex SHA-256 over the content of the samples' images; None if one's is unavailable."""
    digest = hashlib.sha256()
    known: dict[str, str | None] = {}
    for sample in samples:
        source = sample.image
        if source.name not in known:
            known[source.name] = content_id(source)
        content = known[source.name]
        if content is None:
            return None
        digest.update(content.encode() + b"\n")
    return digest.hexdigest()
