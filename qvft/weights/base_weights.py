"""Reads a checkpoint's weights lazily."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from safetensors import safe_open
from torch import Tensor, nn

from qvft.models.question_aware.checkpoint import Checkpoint
from qvft.weights.merge_plan import tied_keys


@dataclass(frozen=True)
class StoredWeights(Mapping[str, Tensor]):
    """A model's weights by key; each lookup reads the file, and nothing is cached.

    Attributes:
        checkpoint: their checkpoint.
        stored: key of the model to its key in the files.
    """

    checkpoint: Checkpoint
    stored: Mapping[str, str]

    def __getitem__(self, key: str) -> Tensor:
        stored = self.stored[key]
        # Read, not memory-mapped: mapped pages count as this process's memory.
        path = self.checkpoint.files[stored]
        with safe_open(path, framework="pt", backend="pread") as stream:
            tensor: Tensor = stream.get_tensor(stored)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)


def stored_weights(checkpoint: Checkpoint, model: nn.Module) -> StoredWeights | None:
    """The weights of `model` in a checkpoint; None if loading would need a conversion.

    That is, if a weight is missing, unexpected, of another shape or under another name, or if two
    tied weights are stored and differ.

    Args:
        model: the model, possibly on the meta device.
    """
    owners = tied_keys(model)
    shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    if any(shapes.get(key) != shape for key, shape in checkpoint.shapes.items()):
        return None
    names: dict[str, list[str]] = {key: [] for key in shapes if key not in owners}
    for key in checkpoint.shapes:
        names[owners.get(key, key)].append(key)
    if not all(names.values()):
        return None
    stored = {key: names[owners.get(key, key)][0] for key in shapes}
    found = StoredWeights(checkpoint, stored)
    as_stored = StoredWeights(checkpoint, {key: key for key in checkpoint.shapes})
    for first, *others in names.values():
        if not all(torch.equal(as_stored[first], as_stored[other]) for other in others):
            return None
    return found
