"""Reads the dtypes of a checkpoint's weights from safetensors headers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from qvft.errors import ModelError

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}


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
