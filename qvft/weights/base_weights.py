"""Base weights of a merge, read lazily from the checkpoint where possible."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from qvft.models.checkpoint_tensors import Checkpoint, open_checkpoint
from qvft.models.image_size import config_with_image_size, interpolated_as, positions_of
from qvft.models.reference_configs import meta_model
from qvft.models.weight_origins import tied_keys
from qvft.setup.model import base_model, base_of
from qvft.weights.merge_inputs import MergeInputs


@dataclass(frozen=True)
class StoredWeights(Mapping[str, Tensor]):
    """A model's weights by key; each lookup reads the file, and nothing is cached.

    `stored` has the key in the files by the key of the model. With `resized`, a configuration of
    another image size, position embeddings are interpolated.
    """

    checkpoint: Checkpoint
    stored: Mapping[str, str]
    resized: PretrainedConfig | None = None

    def __getitem__(self, key: str) -> Tensor:
        stored = self.stored[key]
        # Read, not memory-mapped: mapped pages count as this process's memory.
        path = self.checkpoint.files[stored]
        with safe_open(path, framework="pt", backend="pread") as stream:
            tensor: Tensor = stream.get_tensor(stored)
        if self.resized is not None and key == positions_of(self.resized).key:
            return interpolated_as(tensor, self.resized)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)


def stored_weights(checkpoint: Checkpoint, model: nn.Module) -> StoredWeights | None:
    """The weights of `model` in a checkpoint; None if loading would need a conversion.

    That is, if a weight is missing, unexpected, of another shape or under another name, or if two
    tied weights are stored and differ.
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
    as_stored = StoredWeights(checkpoint, {key: key for key in checkpoint.shapes})
    for first, *others in names.values():
        if not all(torch.equal(as_stored[first], as_stored[other]) for other in others):
            return None
    return StoredWeights(checkpoint, {key: names[owners.get(key, key)][0] for key in shapes})


def base_weights(inputs: MergeInputs) -> tuple[PreTrainedModel, Mapping[str, Tensor]]:
    """The unquantized base, and its stored weights by key.

    If one checkpoint has all of them under the model's names, the model is on the meta device and
    weights are read lazily. Other models are loaded in full: randomly initialised (`model.init:
    random`), made from a base and a text branch or from components, in QVision's published layout,
    reduced by `model.query_tokens`, or stored under names of another version of transformers.
    """
    recipe, base = inputs.recipe, inputs.base
    whole = not (base.graft or base.decoder or base.published or base.stored_queries)
    if whole and recipe.model.init != "random":
        config, stored = copy.deepcopy(base.config), base.stored_image_size
        model = meta_model(config_with_image_size(config, stored) if stored else config)
        checkpoint = open_checkpoint(
            base.id, where="model.id", location=base.location, revision=base.revision
        )
        weights = stored_weights(checkpoint, model)
        if weights is not None and stored:
            return meta_model(config), replace(weights, resized=config)
        if weights is not None:
            return model, weights
    loaded = base_model(
        recipe, base_of(recipe), quantized=False, dtype=inputs.stored, place=torch.device("cpu")
    ).model
    return loaded, loaded.state_dict()
