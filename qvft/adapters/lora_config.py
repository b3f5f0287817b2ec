"""Validates `adapter_config.json` before PEFT reads it: only what qvft.train writes is accepted.

PEFT accepts more: a module to import, a regular expression for layer names, layers of any size.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat
from safetensors import SafetensorError, safe_open

from qvft.adapters.manifest import require_fields
from qvft.errors import CheckpointError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
LAYER = ".lora_A.weight"
"""Suffix of the key of a layer's A matrix."""


class _Settings(BaseModel):
    """Settings of a LoRA from qvft.train that PEFT uses."""

    model_config = ConfigDict(extra="allow")

    peft_type: Literal["LORA"]
    bias: Literal["none"]
    r: int = Field(ge=1)
    lora_alpha: FiniteFloat
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: list[str]
    fan_in_fan_out: bool = False
    use_dora: bool = False
    use_rslora: bool = False
    inference_mode: bool = False
    init_lora_weights: bool = True


_WITHOUT_EFFECT = frozenset(
    ("auto_mapping", "base_model_name_or_path", "megatron_core", "peft_version")
    + ("qalora_group_size", "revision", "task_type")
)
"""Fields that PEFT writes but does not use if all others are empty."""


def read_lora_config(folder: Path) -> dict[str, Any]:
    """The LoRA settings of an adapter folder.

    Raises:
        CheckpointError: the file is damaged, or has anything that qvft.train does not write.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        known = _Settings.model_fields.keys() | _WITHOUT_EFFECT
        further = [str(key)[:40] for key, value in config.items() if key not in known and value]
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"damaged: {error}", where=str(path)) from error
    if further:
        raise CheckpointError(
            f"an adapter with {', '.join(further)}",
            where=str(path),
            expected="LoRA, DoRA or rsLoRA as qvft.train writes it",
        )
    require_fields(config, _Settings, where=str(path))
    return config


def require_fitting_lora(folder: Path) -> set[str]:
    """Names of the layers with weights in the file, whose header is checked against the settings:
    PEFT allocates layers of their size first.

    The settings have full layer names; those of qvft 0.1.0 with 20 layers or more have suffixes.

    Raises:
        CheckpointError: a file is damaged, or the rank or the layers are not those of the settings.
    """
    config, path = read_lora_config(folder), folder / WEIGHTS
    try:
        with safe_open(path, framework="numpy") as stream:  # shapes alone, without torch
            ranks = {
                key.removesuffix(LAYER): stream.get_slice(key).get_shape()[0]
                for key in stream.keys()  # noqa: SIM118
                if key.endswith(LAYER)
            }
    except (OSError, SafetensorError, IndexError) as error:
        raise CheckpointError(f"cannot be read: {error}", where=str(path)) from error
    targets = config["target_modules"]
    ends = tuple("." + target for target in targets)
    known = all(layer.endswith(ends) for layer in ranks)
    used = all(any(layer.endswith(end) for layer in ranks) for end in ends)
    if set(ranks.values()) != {config["r"]} or not known or not used:
        found = ", ".join(map(str, sorted(set(ranks.values()))))
        raise CheckpointError(
            f"{len(ranks)} layers of rank {found or 'none'}",
            where=str(path),
            expected=f"{len(targets)} of rank {config['r']}, as in {CONFIG}",
        )
    return set(ranks)
