"""`adapter_config.json`, read before PEFT reads it: only what qvft.train writes passes.

PEFT acts on far more: a config may name a module to import, a pattern to match every layer's name
against, or layers to make of any size.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from qvft.errors import CheckpointError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
LAYER = ".lora_A.weight"
"""What the key of a layer's first matrix ends in."""

_ACTED_ON = frozenset(
    ("peft_type", "bias", "r", "lora_alpha", "lora_dropout", "target_modules", "fan_in_fan_out")
    + ("use_dora", "use_rslora", "inference_mode", "init_lora_weights")
)
_WITHOUT_EFFECT = frozenset(
    ("auto_mapping", "base_model_name_or_path", "megatron_core", "peft_version")
    + ("qalora_group_size", "revision", "task_type")
)
"""What PEFT writes beside and does not act on where everything else is empty."""
_FLAGS = ("fan_in_fan_out", "use_dora", "use_rslora", "inference_mode", "init_lora_weights")


def read_lora_config(folder: Path) -> dict[str, Any]:
    """The LoRA settings of an adapter folder.

    Raises:
        CheckpointError: the file is damaged, or says anything that qvft.train does not write.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind = {"peft_type": config["peft_type"], "bias": config["bias"]}
        sizes = int(config["r"]), float(config["lora_alpha"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise CheckpointError(f"damaged: {error}", where=str(path)) from error
    odd = [
        str(key)[:40]
        for key, value in config.items()
        if key not in _ACTED_ON | _WITHOUT_EFFECT and value
    ]
    odd += [key for key in _FLAGS if not isinstance(config.get(key, False), bool)]
    if kind != {"peft_type": "LORA", "bias": "none"} or odd:
        raise CheckpointError(
            f"an adapter with {', '.join(odd) or kind}",
            where=str(path),
            expected="LoRA, DoRA or rsLoRA as qvft.train writes it",
        )
    problem = _ill_sized(config, *sizes)
    if problem:
        raise CheckpointError(f"damaged: {problem}", where=str(path))
    return config


def require_fitting_lora(folder: Path) -> set[str]:
    """Checks settings and weights against each other by the file's header alone.

    PEFT makes layers of the size that the settings name before it looks at the weights. The
    settings name layers by full names; those that qvft 0.1.0 wrote of 20 layers or more have
    endings.

    Returns:
        Names of the layers that have weights, as the file has them.

    Raises:
        CheckpointError: as `read_lora_config`; or the header is damaged, or the rank or the layers
            are not those of the settings.
    """
    config, path = read_lora_config(folder), folder / WEIGHTS
    try:
        with safe_open(path, framework="pt") as stream:
            ranks = {
                key.removesuffix(LAYER): stream.get_slice(key).get_shape()[0]
                for key in stream.keys()  # noqa: SIM118
                if key.endswith(LAYER)
            }
    except (OSError, SafetensorError, IndexError) as error:
        raise CheckpointError(f"cannot be read: {error}", where=str(path)) from error
    targets = config["target_modules"]
    ends = tuple("." + target for target in targets)
    named = all(layer.endswith(ends) for layer in ranks)
    used = all(any(layer.endswith(end) for layer in ranks) for end in ends)
    if set(ranks.values()) != {config["r"]} or not named or not used:
        found = ", ".join(map(str, sorted(set(ranks.values()))))
        raise CheckpointError(
            f"{len(ranks)} layers of rank {found or 'none'}",
            where=str(path),
            expected=f"{len(targets)} of rank {config['r']}, as in {CONFIG}",
        )
    return set(ranks)


def _ill_sized(config: Mapping[str, Any], rank: int, alpha: float) -> str | None:
    """What is wrong with a value that is acted on, None if nothing is."""
    targets, dropout = config.get("target_modules"), config.get("lora_dropout", 0.0)
    if isinstance(config["r"], bool) or rank != config["r"] or rank < 1:
        return "r is no rank"
    if not math.isfinite(alpha):
        return "lora_alpha is not finite"
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        return "lora_dropout is no share"
    if not isinstance(targets, list) or not all(isinstance(name, str) for name in targets):
        return "target_modules is no list of names"
    return None
