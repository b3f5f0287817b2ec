"""Writes a safetensors file weight by weight; `save_file` needs all of a file in memory at once.

Source: the format's description, safetensors README, section "Format": 8 bytes with the header's
length, the header in JSON, padded with blanks, the weights without gaps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

_CODES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Name of each dtype in the header, in the order in which `save_file` sorts weights."""

_ALIGNMENT_BYTES = 8


def write_tensor_file(
    path: Path, outline: Mapping[str, Tensor], value: Callable[[str], Tensor]
) -> None:
    """Writes a file as `save_file(..., metadata={"format": "pt"})` does.

    Args:
        outline: dtypes and shapes by key; tensors may be on the meta device.
        value: returns the weight of a key, on the CPU; called once per key, in order.
    """
    ranks = {dtype: rank for rank, dtype in enumerate(_CODES)}
    keys = sorted(outline, key=lambda key: (ranks[outline[key].dtype], key.encode()))
    with path.open("wb") as stream:
        stream.write(_header({key: outline[key] for key in keys}))
        for key in keys:
            tensor = value(key)
            assert (tensor.dtype, tensor.shape) == (outline[key].dtype, outline[key].shape), key
            stream.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
            del tensor  # before the next one is computed


def _header(outline: Mapping[str, Tensor]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for key, tensor in outline.items():
        start, end = end, end + math.prod(tensor.shape) * tensor.itemsize
        entries[key] = {
            "dtype": _CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT_BYTES)
    return len(text).to_bytes(8, "little") + text
