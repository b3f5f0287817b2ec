"""Features as the bytes of a record, and back.

Shape letters: P patches, W ViT width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qvft.data.features.cache_spec import FeatureSpec

_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
_LARGEST = 127


def to_record(space: FeatureSpec, features: Tensor) -> Tensor:
    """The payload of a record (uint8) of features (P, W).

    With int8 each token t is kept as round(x / s) with s = max|x| / 127, so that a value is off by
    at most s / 2, but for float32's rounding.
    """
    assert features.shape == (space.patches, space.width), tuple(features.shape)
    if space.stored_dtype != "int8":
        return _as_bytes(features.to(_DTYPES[space.stored_dtype]))
    exact = features.float()
    scales = exact.abs().amax(dim=1) / _LARGEST
    steps = exact / scales.where(scales > 0, torch.ones_like(scales))[:, None]
    values = steps.round().clamp(-_LARGEST, _LARGEST).to(torch.int8)
    payload = torch.zeros(space.payload_bytes, dtype=torch.uint8)
    payload[: space.values_bytes] = _as_bytes(values)
    payload[-scales.numel() * scales.itemsize :] = _as_bytes(scales)
    return payload


def from_record(space: FeatureSpec, payload: Tensor) -> Tensor:
    """Features (P, W) of a payload: a view of its memory, or, with int8, float32 of their own."""
    if space.stored_dtype != "int8":
        return payload.view(_DTYPES[space.stored_dtype]).view(space.patches, space.width)
    values = payload[: space.values_bytes].view(torch.int8).view(space.patches, space.width)
    scales = payload[-space.patches * torch.float32.itemsize :].view(torch.float32)
    return values * scales[:, None]


def _as_bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
