"""Writes configuration, tokenizer and card of a checkpoint folder; estimates disk space."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PretrainedConfig

from qvft.files import require_space, sha256_file

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
