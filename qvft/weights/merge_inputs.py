"""Inputs of a merge: a run's adapter, base and hashes, checked before any model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from qvft.adapters.checkpoint import check_base, read_bridge
from qvft.adapters.fingerprints import require_untouched
from qvft.adapters.lora_weights import LoraWeight, read_lora
from qvft.adapters.manifest import read_manifest
from qvft.models.base_checkpoint import BaseCheckpoint
from qvft.models.weight_files import weight_files
from qvft.recipe.schema import Recipe
from qvft.setup.model import DTYPES, base_hash, base_of, versions
from qvft.setup.run_recipe import run_recipe
from qvft.weights.stored_dtypes import main_dtype, stored_dtypes, widest_dtype
from qvft.weights.write import file_hashes


@dataclass(frozen=True)
class Ingredients:
    """Inputs of a merge, read and checked.

    Attributes:
        stored: dtype that represents every base weight exactly. written: output dtype.
        weights: number of weights in the base's files.
    """

    recipe: Recipe
    base: BaseCheckpoint
    manifest: dict[str, Any]
    bridge: dict[str, torch.Tensor]
    lora: dict[str, LoraWeight]
    stored: torch.dtype
    written: torch.dtype
    weights: int


def read_ingredients(
    run_dir: Path,
    *,
    dtype: str | None = None,
    overrides: Sequence[str] = (),
    program: str = "merge",
) -> Ingredients:
    """Reads a run's recipe, manifest and trained weights, and finds its base; loads no model.

    Raises:
        UserError: no run, a damaged adapter, another base than it was trained on, or an override
            that `program` does not read.
    """
    recipe = run_recipe(run_dir, list(overrides), program=program)
    adapter = run_dir / "adapter"
    manifest = read_manifest(adapter)
    bridge, lora = read_bridge(adapter, manifest), read_lora(adapter)
    require_untouched(adapter, manifest)
    base = base_of(recipe)
    check_base(manifest, base_id=base.id, weights_sha256=base_hash(recipe, base))
    fresh = recipe.model.init == "random"
    counts = {torch.float32: 0} if fresh else stored_dtypes(weight_files(base))
    weights = sum(counts.values()) or sum(tensor.numel() for tensor in bridge.values())
    return Ingredients(
        recipe,
        base,
        manifest,
        bridge,
        lora,
        stored=widest_dtype(counts),
        written=DTYPES[dtype] if dtype else main_dtype(counts),
        weights=weights,
    )


def origin(run_dir: Path, ingredients: Ingredients) -> dict[str, Any]:
    """Provenance of a written checkpoint, for its JSON file."""
    manifest, recipe = ingredients.manifest, ingredients.recipe
    other = recipe.model.decoder
    decoder = {"id": other, "revision": ingredients.base.decoder_revision}
    return {
        "format": 1,
        "base": {
            "id": ingredients.base.id,
            "revision": ingredients.base.revision,
            "weights_sha256": manifest["base_weights_sha256"],
            "family": manifest["family"],
            **({"decoder": decoder} if other is not None else {}),
        },
        "recipe": recipe.name,
        "recipe_sha256": manifest["recipe_sha256"],
        "data_sha256": manifest["data_sha256"],
        "adapter": file_hashes(run_dir / "adapter"),
        "quantized": recipe.model.quantization.scheme,
        "prompt": recipe.data.prompt.recorded(),
        "text": recipe.data.text,
        "max_text_tokens": recipe.data.max_text_tokens,
        "decode": recipe.eval.model_dump(include={"caption", "answer"}),
        "dtype": str(ingredients.written).removeprefix("torch."),
        "versions": versions(),
    }
