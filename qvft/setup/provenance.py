"""Provenance of a checkpoint: base weights, recipe and data by hash, and library versions."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any

from qvft.json_files import sha256_json
from qvft.models.base_checkpoint import BaseCheckpoint
from qvft.models.weight_files import weights_hash
from qvft.recipe.recipe_lock import recipe_hash
from qvft.recipe.schema import Recipe

LIBRARIES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "safetensors", "qvft")


def base_hash(recipe: Recipe, base: BaseCheckpoint, *, recorded: str | None = None) -> str:
    """Identity of the initial weights: file content, or seed and geometry.

    Args:
        recorded: that of a run, returned if it is these weights'; see `weights_hash`.
    """
    if recipe.model.init == "random":
        return sha256_json({"seed": recipe.run.seed, "config": base.config.to_dict()["model_type"]})
    return weights_hash(base, recorded=recorded)


def provenance_of(
    recipe: Recipe,
    base: BaseCheckpoint,
    data_sha256: Mapping[str, str],
    images_sha256: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Provenance of a checkpoint, for its manifest."""
    return {
        "base_id": recipe.model.id,
        "base_revision": base.revision,
        "decoder_id": recipe.model.decoder,
        "decoder_revision": base.decoder_revision,
        "base_weights_sha256": base_hash(recipe, base),
        "family": base.family.name,
        "recipe_sha256": recipe_hash(recipe),
        "data_sha256": dict(data_sha256),
        "images_sha256": dict(images_sha256 or {}),
        "quantized": recipe.model.quantization.scheme,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Versions of qvft and of the libraries that affect results."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
