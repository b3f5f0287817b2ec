"""Writes configuration, tokenizer, shards and model code of a checkpoint, and compares the written
weights with the merge plan; estimates disk space.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import safe_open
from torch import Tensor
from transformers import GenerationConfig, PretrainedConfig
from transformers.core_model_loading import dot_natural_key

from qvft.errors import VerificationError
from qvft.files import require_space, sha256_file, write_text
from qvft.models.qvision import AUTO_MODELS, configuration, encoder, modeling, qformer
from qvft.models.qvision.modeling import QVisionForConditionalGeneration
from qvft.weights.merge_plan import MergePlan
from qvft.weights.tensor_file import write_tensor_file

SLACK_BYTES = 64_000_000
"""Disk space for the processor and other small files."""


def require_room(out: Path, weights: int, dtype: torch.dtype) -> None:
    """Raises SpaceError if the disk of `out` has no space for `weights` weights of a dtype."""
    # With float16 the Q-Former is written in float32; a tenth more covers it in every known model.
    spare = 1.1 if dtype == torch.float16 else 1.0
    require_space(out, int(weights * dtype.itemsize * spare) + SLACK_BYTES)


def written_config(
    base: PretrainedConfig, *, model_class: str, dtype: torch.dtype, stop_ids: list[int]
) -> PretrainedConfig:
    """The base's configuration with class, dtype and stop tokens of the written model.

    `Blip2ForConditionalGeneration.generate` calls its decoder, which uses `eos_token_id` of
    `text_config`, not the folder's generation_config.json.
    """
    config = copy.deepcopy(base)
    config.architectures = [model_class]
    config.dtype = dtype
    for part in config.sub_configs:
        getattr(config, part).dtype = dtype
    config.text_config.eos_token_id = stop_ids
    return config


def write_settings(folder: Path, processor: Any, *, config: PretrainedConfig) -> None:
    """Writes config.json from `written_config`, generation_config.json and the processor."""
    text = config.text_config
    GenerationConfig(
        bos_token_id=text.bos_token_id,
        eos_token_id=text.eos_token_id,
        pad_token_id=text.pad_token_id,
        decoder_start_token_id=getattr(text, "decoder_start_token_id", None),
    ).save_pretrained(folder)
    config.save_pretrained(folder)
    processor.save_pretrained(folder)


def file_hashes(folder: Path) -> dict[str, str]:
    """Hex SHA-256 of all files of a folder, recursively, by relative path."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}


PACKAGE = "qvft.models.qvision."
CODE = (configuration, encoder, qformer, modeling)


def write_code(folder: Path) -> None:
    """Copies the model code next to saved weights and adds `auto_map` to their config.json."""
    for module in CODE:
        assert module.__file__ is not None
        source = Path(module.__file__)
        text = source.read_text(encoding="utf-8").replace(f"from {PACKAGE}", "from .")
        (folder / source.name).write_text(text, encoding="utf-8")
    model_class = f"modeling.{QVisionForConditionalGeneration.__name__}"
    config_file = folder / "config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config["auto_map"] = {
        "AutoConfig": f"configuration.{configuration.QVisionConfig.__name__}",
        **{auto.__name__: model_class for auto in AUTO_MODELS},
    }
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


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


def verify_weights(folder: Path, base: Mapping[str, Tensor], plan: MergePlan) -> dict[str, int]:
    """Checks that the weights in `folder` equal the plan applied to `base`, bit by bit; returns the
    numbers of compared `keys` and `weights`. A tied weight may be stored under any of its names.

    Raises:
        VerificationError: a key is missing or unexpected, or differs in dtype, shape or any bit.
    """
    owner_of = {key: plan.owners.get(key, key) for key in plan.actions}
    found: set[str] = set()
    weights = 0
    for key, written in written_tensors(folder):
        if key not in owner_of:
            raise VerificationError(f"{key} was written and is not in the base")
        owner = owner_of[key]
        expected = plan.value(owner, base[owner])
        if written.dtype != expected.dtype or written.shape != expected.shape:
            raise VerificationError(
                f"{key} was written as {written.dtype} {tuple(written.shape)}, expected "
                f"{expected.dtype} {tuple(expected.shape)}"
            )
        if not torch.equal(written, expected):
            off = int((written != expected).sum())
            raise VerificationError(
                f"{off} of {written.numel()} weights of {key} ({plan.actions[owner]}) are not "
                "what the plan says"
            )
        found.add(owner)
        weights += written.numel()
    missing = sorted(set(owner_of.values()) - found)
    if missing:
        raise VerificationError(f"{len(missing)} weights were not written, first {missing[0]}")
    return {"keys": len(found), "weights": weights}


def written_tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of all safetensors files in a folder, one in memory at a time."""
    for path in sorted(folder.glob("*.safetensors")):
        # Read, not memory-mapped: mapped pages count as this process's memory.
        with safe_open(path, framework="pt", backend="pread") as stream:
            for key in stream.keys():  # noqa: SIM118
                yield key, stream.get_tensor(key)
