"""Re-reads a written checkpoint and compares every weight with the merge plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from qvft.errors import VerificationError
from qvft.weights.merge_plan import MergePlan


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
