"""Writes the shards of a merged checkpoint from a merge plan."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from torch import Tensor
from transformers.core_model_loading import dot_natural_key

from qvft.files import write_text
from qvft.weights.merge_plan import MergePlan
from qvft.weights.tensor_file import write_tensor_file

_PATTERN, _INDEX = "model{suffix}.safetensors", "model.safetensors.index.json"


@torch.no_grad()
def write_shards(
    folder: Path, base: Mapping[str, Tensor], plan: MergePlan, *, parameters: int, shard_size: str
) -> None:
    """Writes the merged weights as `save_pretrained` of the merged model would.

    Memory: one weight, in its stored dtype and in float32, plus the trained weights.
    """
    outline = plan.outline()
    # The order in which `save_pretrained` fills the shards of a model that was loaded.
    outline = {key: outline[key] for key in sorted(outline, key=dot_natural_key)}
    split = split_torch_state_dict_into_shards(
        outline, filename_pattern=_PATTERN, max_shard_size=shard_size
    )
    for name, keys in split.filename_to_tensors.items():
        write_tensor_file(
            folder / name,
            {key: outline[key] for key in keys},
            lambda key: plan.value(key, base[key]),
        )
    if split.is_sharded:
        index = {
            "metadata": {"total_parameters": parameters, **split.metadata},
            "weight_map": split.tensor_to_filename,
        }
        write_text(folder / _INDEX, json.dumps(index, indent=2, sort_keys=True) + "\n")
