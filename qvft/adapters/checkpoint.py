"""Saves and loads an adapter folder: LoRA in PEFT's format, other trained weights, a manifest.

adapter_config.json, adapter_model.safetensors: plain PEFT loads these (absent without LoRA).
bridge.safetensors: Q-Former, query tokens (which PEFT would not save), language projection and
other trained weights, under their names in `named_parameters`.
alignment.safetensors, objectives.safetensors: alignment heads and weights of custom objectives, if
any; not part of the generation model, so merges and exports do not include them.
manifest.json: provenance, keys, and hashes of the other files.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from qvft.adapters.lora import lora_state, restore_lora, save_lora
from qvft.adapters.manifest import (
    FORMAT,
    MANIFEST,
    alignment_entry,
    fingerprints,
    read_manifest,
    require_untouched,
)
from qvft.errors import CheckpointError, NonFiniteWeightsError
from qvft.json_files import write_json
from qvft.log import is_main_process
from qvft.models.alignment.heads import AlignmentHeads
from qvft.models.alignment.initial_weights import load_heads
from qvft.models.families import Family
from qvft.models.sharded_weights import copy_into, full_tensor

if TYPE_CHECKING:
    from qvft.adapters.lora import PeftModel

BRIDGE, LORA = "bridge.safetensors", "adapter_config.json"
ALIGNMENT = "alignment.safetensors"
OBJECTIVES = "objectives.safetensors"
PREFIX = "alignment_heads."


@dataclass(frozen=True)
class Alignment:
    """Alignment heads, the objectives that train them, and the tokenizer of their texts.

    `source` is hub id or folder of the tokenizer.
    """

    heads: AlignmentHeads
    objectives: tuple[str, ...]
    source: str
    max_text_tokens: int
    tokenizer: Any

    def facts(self) -> dict[str, Any]:
        """Manifest entry: everything but the weights."""
        config = self.heads.config
        return {
            "objectives": list(self.objectives),
            "tokenizer": self.source,
            "max_text_tokens": self.max_text_tokens,
            "vocab_size": config.vocab_size,
            "pad_id": config.pad_token_id,
            "positions": config.max_position_embeddings,
            "embedding_width": self.heads.embedding_width,
            "text_generation": self.heads.lm_head is not None,
            "generation_start_id": self.heads.generation_start_id,
        }


def bridge_names(model: PreTrainedModel) -> set[str]:
    """Names of the currently trained weights that are not LoRA's."""
    return {
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and ".lora_" not in name
    }


def save_checkpoint(
    folder: Path,
    model: PreTrainedModel,
    handle: PeftModel | None,
    family: Family,
    provenance: Mapping[str, Any],
    *,
    bridge: Collection[str],
    alignment: Alignment | None = None,
    objectives: Mapping[str, nn.Module] | None = None,
) -> None:
    """Writes the adapter folder; the manifest last, so that a folder with one is complete. The main
    process writes. Collective if weights are sharded.

    Args:
        provenance: everything in the manifest besides its keys and files.
        bridge: names of the non-LoRA weights trained in any phase.

    Raises:
        NonFiniteWeightsError: a weight is NaN or infinite; nothing was written.
    """
    lora = {} if handle is None else lora_state(handle)
    head_weights = {} if alignment is None else alignment.heads.state_dict(prefix=PREFIX)
    heads = {name: _whole(tensor) for name, tensor in head_weights.items()}
    weights = model.named_parameters()
    state = {name: _whole(tensor) for name, tensor in weights if name in bridge}
    loss_weights = nn.ModuleDict(objectives).state_dict()
    losses = {name: tensor.cpu().contiguous() for name, tensor in loss_weights.items()}
    everything = {**lora, **heads, **state, **losses}
    bad = [name for name, weight in everything.items() if not torch.isfinite(weight).all()]
    if bad:
        raise NonFiniteWeightsError(
            f"{len(bad)} trained weights are NaN or infinite, first {bad[0]}: they are not "
            "written, and earlier files stay; train with a lower train.learning_rate"
        )
    if not is_main_process():
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    if handle is not None:
        save_lora(handle, folder, lora)
    save_file(state, folder / BRIDGE, metadata={"format": "pt"})
    keys = {
        name: {"component": family.component(name), **_described(tensor)}
        for name, tensor in sorted(state.items())
    }
    further: dict[str, Any] = {}
    if alignment is not None:
        save_file(heads, folder / ALIGNMENT, metadata={"format": "pt"})
        entries = {name: _described(tensor) for name, tensor in sorted(heads.items())}
        further["alignment"] = {**alignment.facts(), "weights": entries}
    if losses:
        save_file(losses, folder / OBJECTIVES, metadata={"format": "pt"})
        further["objectives"] = {name: _described(t) for name, t in sorted(losses.items())}
    # safetensors makes files readable only by the owner; a run is often shared. The process's mask
    # can be read only by setting it.
    mask = os.umask(0)
    os.umask(mask)
    for path in folder.glob("*.safetensors"):
        path.chmod(0o666 & ~mask)
    written = {"bridge": keys, **further, "files": fingerprints(folder)}
    write_json(folder / MANIFEST, {"format": FORMAT, **provenance, **written})


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    """A full weight on the CPU; collective if sharded."""
    return full_tensor(tensor.detach()).cpu().contiguous()


def _described(tensor: torch.Tensor) -> dict[str, Any]:
    return {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}


def check_base(manifest: Mapping[str, Any], *, base_id: str, weights_sha256: str) -> None:
    """Raises CheckpointError if a checkpoint was trained on another base."""
    if manifest["base_weights_sha256"] != weights_sha256:
        raise CheckpointError(
            f"base {base_id} has weights {weights_sha256[:12]}",
            where="model.id",
            expected=f"the base it was trained on, {manifest['base_id']} with weights "
            f"{manifest['base_weights_sha256'][:12]}",
        )


def read_bridge(folder: Path, manifest: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Tensors of `bridge.safetensors`, checked against the manifest.

    Raises:
        CheckpointError: the file is damaged, keys, shapes or types are not the manifest's, or a
            weight is not finite.
    """
    return _read_checked(folder / BRIDGE, manifest["bridge"])


def restore_alignment(folder: Path, heads: AlignmentHeads) -> None:
    """Loads the alignment heads of an adapter folder into given heads, in place.

    Raises:
        CheckpointError: it has none, or their file is damaged.
        ModelError: a key is missing, unknown or of another shape.
    """
    manifest = read_manifest(folder)
    state = _read_checked(folder / ALIGNMENT, alignment_entry(folder, manifest)["weights"])
    require_untouched(folder, manifest)
    named = {name.removeprefix(PREFIX): tensor for name, tensor in state.items()}
    load_heads(heads, named, source=str(folder / ALIGNMENT))


def restore_objectives(folder: Path, objectives: Mapping[str, nn.Module]) -> None:
    """Loads the weights of custom objectives into their losses, in place.

    Raises:
        CheckpointError: the file is damaged, or its weights are not those of these objectives.
    """
    manifest = read_manifest(folder)
    losses = nn.ModuleDict(objectives)
    entries = manifest.get("objectives", {})
    expected = {name: _described(tensor) for name, tensor in losses.state_dict().items()}
    if entries != expected:
        differing = sorted(n for n in entries | expected if entries.get(n) != expected.get(n))
        raise CheckpointError(
            f"{differing[0]} is not the same in the checkpoint and in objectives.custom",
            where=str(folder),
            do="take the objectives that it was trained with",
        )
    if entries:
        state = _read_checked(folder / OBJECTIVES, entries)
        require_untouched(folder, manifest)
        losses.load_state_dict(state)


def _read_checked(path: Path, entries: dict[str, Any]) -> dict[str, torch.Tensor]:
    try:
        with safe_open(path, framework="pt") as stream:
            state = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot be read: {error}", where=str(path)) from error
    found = {key: _described(tensor) for key, tensor in state.items()}
    expected = {key: {"shape": one["shape"], "dtype": one["dtype"]} for key, one in entries.items()}
    if found != expected:
        differing = sorted(key for key in found | expected if found.get(key) != expected.get(key))
        raise CheckpointError(
            f"{len(differing)} keys differ from the manifest, first {differing[0]}", where=str(path)
        )
    for key, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{key} is not finite", where=str(path))
    return state


def restore_checkpoint(folder: Path, model: PreTrainedModel, handle: PeftModel | None) -> None:
    """Loads an adapter folder's weights into a model, in place.

    Raises:
        CheckpointError: a file is damaged, or a key or shape does not fit the model.
    """
    manifest = read_manifest(folder)
    state = read_bridge(folder, manifest)
    if (folder / LORA).is_file() != (handle is not None):
        raise CheckpointError("LoRA weights on one side only", where=str(folder))
    require_untouched(folder, manifest)
    if handle is not None:
        restore_lora(handle, folder)
    parameters = dict(model.named_parameters())
    for name, tensor in state.items():
        target = parameters.get(name)
        if target is None or target.shape != tensor.shape:
            raise CheckpointError(
                f"{name} {tuple(tensor.shape)} has no place in the model", where=str(folder)
            )
        copy_into(target, tensor)
