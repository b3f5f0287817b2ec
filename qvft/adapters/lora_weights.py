"""Computes merged LoRA weights, W + scale * B A, from an adapter's files, without PEFT.

Without PEFT, so that a comparison with PEFT is an independent check.
Shape letters: O output width, I input width, R rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from qvft.adapters.lora_config import CONFIG, WEIGHTS, read_lora_config
from qvft.errors import CheckpointError

_PREFIX = "base_model.model."
_PARTS = ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector")


@dataclass(frozen=True)
class LoraWeight:
    """One LoRA layer.

    Attributes:
        a: (R, I) float32. b: (O, R) float32.
        scale: alpha / R, or alpha / sqrt(R) with rsLoRA.
        magnitude: (O,) float32 with DoRA, otherwise None.
        transposed: whether its base weight is stored (I, O), as GPT-2's are.
    """

    a: Tensor
    b: Tensor
    scale: float
    magnitude: Tensor | None
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of its base weight: (O, I), or (I, O) if transposed."""
        width_out, width_in = self.b.shape[0], self.a.shape[1]
        return (width_in, width_out) if self.transposed else (width_out, width_in)

    def merged(self, weight: Tensor) -> Tensor:
        """Base weight merged with the adapter, in float32.

        `weight` and result have shape `shape`.

        Source: LoRA, arXiv 2106.09685, section 4.1; DoRA, arXiv 2402.09353, equation 5, where rows
        of W + sBA are scaled to the trained magnitude.
        """
        base = weight.float().T if self.transposed else weight.float()
        merged = base + self.scale * (self.b @ self.a)
        if self.magnitude is not None:
            merged = (self.magnitude / torch.linalg.norm(merged, dim=1)).unsqueeze(1) * merged
        return merged.T.contiguous() if self.transposed else merged


def read_lora(folder: Path) -> dict[str, LoraWeight]:
    """LoRA layers of an adapter folder, by name of their base weight.

    Empty without LoRA.

    Raises:
        CheckpointError: a file is damaged, a setting is not supported, or a tensor is unexpected,
            missing, of another shape or not finite.
    """
    if not (folder / CONFIG).is_file():
        return {}
    config = read_lora_config(folder)
    path = folder / WEIGHTS
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot be read: {error}", where=str(path)) from error
    expected = _PARTS if config.get("use_dora") else _PARTS[:2]
    layers: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        part = next((part for part in expected if key.endswith("." + part)), None)
        if part is None or not key.startswith(_PREFIX):
            raise CheckpointError(
                f"{key} is not a LoRA weight", where=str(path), expected="lora_A and lora_B"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{key} is not finite", where=str(path))
        name = key[len(_PREFIX) : -len(part) - 1]
        layers.setdefault(name, {})[part] = tensor.float()
    if not layers:
        raise CheckpointError("holds no LoRA weight", where=str(path))
    return {
        f"{name}.weight": _layer(name, parts, expected, config, path)
        for name, parts in sorted(layers.items())
    }


def _layer(
    name: str,
    parts: Mapping[str, Tensor],
    expected: tuple[str, ...],
    config: Mapping[str, Any],
    path: Path,
) -> LoraWeight:
    missing = [part for part in expected if part not in parts]
    if missing:
        raise CheckpointError(f"{name}.{missing[0]} is missing", where=str(path))
    a, b, magnitude = (parts.get(part) for part in _PARTS)
    assert a is not None and b is not None
    rank = int(config["r"])
    fits = a.ndim == b.ndim == 2 and a.shape[0] == b.shape[1] == rank
    if not fits or (magnitude is not None and magnitude.shape != b.shape[:1]):
        raise CheckpointError(
            f"{name} has A {tuple(a.shape)} and B {tuple(b.shape)}",
            where=str(path),
            expected=f"rank {rank}, as in {CONFIG}",
        )
    alpha = float(config["lora_alpha"])
    scale = alpha / rank**0.5 if config.get("use_rslora") else alpha / rank
    return LoraWeight(a, b, scale, magnitude, transposed=bool(config.get("fan_in_fan_out")))
