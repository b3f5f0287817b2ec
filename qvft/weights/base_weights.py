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
    """A model's weights by their keys in it; each look-up reads the file, and nothing is kept.

    Attributes:
        checkpoint: where they lie.
        stored: key of the model to the key that the files have for it.
    """

    checkpoint: Checkpoint
    stored: Mapping[str, str]

    def __getitem__(self, key: str) -> Tensor:
        stored = self.stored[key]
        # Read rather than mapped: pages of a mapped file count as this process's memory.
        path = self.checkpoint.files[stored]
        with safe_open(path, framework="pt", backend="pread") as stream:
            tensor: Tensor = stream.get_tensor(stored)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)


def stored_weights(checkpoint: Checkpoint, model: nn.Module) -> StoredWeights | None:
    """The weights of `model` in a checkpoint; None where loading would have to change something.

    That is where a weight is missing, surplus, of another shape or under another name than the
    model's, and where two weights that the model ties are stored and differ.

    Args:
        model: may be on the meta device; says which weights there are.
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
