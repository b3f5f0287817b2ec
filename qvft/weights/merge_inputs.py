"""Inputs of a merge: a run's adapter, base and hashes, checked before any model is loaded."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from qvft.adapters.checkpoint import check_base, read_bridge
from qvft.adapters.lora_weights import LoraWeight, read_lora
from qvft.adapters.manifest import read_manifest, require_untouched
from qvft.errors import ModelError
from qvft.models.base_checkpoint import BaseCheckpoint
from qvft.models.weight_files import weight_files
from qvft.recipe.schema import Recipe
from qvft.setup.model import DTYPES, base_of
from qvft.setup.provenance import base_hash, versions
from qvft.setup.run_recipe import run_recipe
from qvft.weights.write import file_hashes

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}


@dataclass(frozen=True)
class MergeInputs:
    """Inputs of a merge, read and checked.

    Attributes:
        stored: dtype that represents every base weight exactly. written: output dtype.
    """

    run_dir: Path
    recipe: Recipe
    base: BaseCheckpoint
    manifest: dict[str, Any]
    bridge: dict[str, torch.Tensor]
    lora: dict[str, LoraWeight]
    stored: torch.dtype
    written: torch.dtype
    weights: int


def read_inputs(
    run_dir: Path,
    *,
    dtype: str | None = None,
    overrides: Sequence[str] = (),
    program: str = "merge",
) -> MergeInputs:
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
    found = base_hash(recipe, base, recorded=manifest["base_weights_sha256"])
    check_base(manifest, base_id=base.id, weights_sha256=found)
    fresh = recipe.model.init == "random"
    counts = {torch.float32: 0} if fresh else stored_dtypes(weight_files(base))
    weights = sum(counts.values()) or sum(tensor.numel() for tensor in bridge.values())
    return MergeInputs(
        run_dir,
        recipe,
        base,
        manifest,
        bridge,
        lora,
        stored=widest_dtype(counts),
        written=DTYPES[dtype] if dtype else main_dtype(counts),
        weights=weights,
    )


def origin(inputs: MergeInputs) -> dict[str, Any]:
    """Provenance of a written checkpoint, for its JSON file."""
    manifest, recipe = inputs.manifest, inputs.recipe
    decoder = {"id": recipe.model.decoder, "revision": inputs.base.decoder_revision}
    return {
        "format": 1,
        "base": {
            "id": inputs.base.id,
            "revision": inputs.base.revision,
            "weights_sha256": manifest["base_weights_sha256"],
            "family": manifest["family"],
            **({"decoder": decoder} if recipe.model.decoder is not None else {}),
        },
        "recipe": recipe.name,
        "recipe_sha256": manifest["recipe_sha256"],
        **({"started_from": manifest["started_from"]} if "started_from" in manifest else {}),
        "data_sha256": manifest["data_sha256"],
        "adapter": file_hashes(inputs.run_dir / "adapter"),
        "quantized": recipe.model.quantization.scheme,
        "prompt": recipe.data.prompt.recorded(),
        "text": recipe.data.text,
        "max_text_tokens": recipe.data.max_text_tokens,
        "decode": recipe.eval.model_dump(include={"caption", "answer"}),
        "dtype": str(inputs.written).removeprefix("torch."),
        "versions": versions(),
    }


def stored_dtypes(files: Sequence[Path]) -> dict[torch.dtype, int]:
    """Number of weights per floating-point dtype in safetensors files.

    Raises:
        ModelError: a file is damaged, or its weights are quantized.
    """
    counts: Counter[torch.dtype] = Counter()
    for path in files:
        try:
            with safe_open(path, framework="pt") as stream:
                for key in stream.keys():  # noqa: SIM118
                    part = stream.get_slice(key)
                    if part.get_dtype() in _DTYPES:
                        counts[_DTYPES[part.get_dtype()]] += math.prod(part.get_shape())
        except (OSError, SafetensorError) as error:
            raise ModelError(f"cannot be read: {error}", where=str(path)) from error
    if not counts:
        raise ModelError("no floating weights", where=", ".join(map(str, files)) or "model.id")
    return dict(counts)


def main_dtype(counts: Mapping[torch.dtype, int]) -> torch.dtype:
    """The dtype of most weights."""
    return max(counts, key=lambda dtype: counts[dtype])


def widest_dtype(counts: Mapping[torch.dtype, int]) -> torch.dtype:
    """A dtype that represents every stored weight exactly."""
    return reduce(torch.promote_types, counts)
