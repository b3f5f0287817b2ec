"""The adapter folder: whole, accounted for, the same after a round trip."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from qvft.adapters.checkpoint import (
    BRIDGE,
    LORA,
    MANIFEST,
    bridge_names,
    check_base,
    read_bridge,
    read_manifest,
    restore_checkpoint,
    save_checkpoint,
)
from qvft.adapters.freeze import mark_trainable
from qvft.adapters.lora import add_lora
from qvft.adapters.targets import resolve_targets
from qvft.errors import CheckpointError
from qvft.models.families import FAMILIES
from tools.tiny_blip2.geometry import init_tiny

FAMILY = FAMILIES["blip2"]
PROVENANCE = {
    "base_id": "base",
    "base_revision": None,
    "base_weights_sha256": "a" * 64,
    "family": "blip2",
    "recipe_sha256": "b" * 64,
    "data_sha256": {"train": "c" * 64},
}
MODES = {
    "vision": "frozen",
    "qformer": "full",
    "query_tokens": "full",
    "language_projection": "full",
}
WEIGHTS = "adapter_model.safetensors"


def built(decoder: str = "lora") -> tuple[Any, Any]:
    """A tiny model, trainable as usual, and PEFT's handle or None."""
    model = init_tiny(0)
    handle = None
    if decoder == "lora":
        handle = add_lora(model, resolve_targets(model, FAMILY, ["q_proj"]), r=2, lora_alpha=4)
    mark_trainable(model, FAMILY, {**MODES, "decoder": decoder})
    return model, handle


def changed(decoder: str = "lora") -> tuple[Any, Any]:
    """As `built`, every trained weight moved as training would."""
    model, handle = built(decoder)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.01)
    return model, handle


def saved(folder: Path, decoder: str = "lora") -> Any:
    model, handle = changed(decoder)
    save_checkpoint(folder, model, handle, FAMILY, PROVENANCE, bridge=bridge_names(model))
    return model


def test_a_round_trip_gives_every_trained_weight_back(tmp_path: Path) -> None:
    model = saved(tmp_path)
    other, handle = built()
    restore_checkpoint(tmp_path, other, handle)
    theirs = dict(other.named_parameters())
    assert all(torch.equal(theirs[name], value) for name, value in model.named_parameters())


def test_saving_what_was_restored_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    saved(first)
    model, handle = built()
    restore_checkpoint(first, model, handle)
    save_checkpoint(second, model, handle, FAMILY, PROVENANCE, bridge=bridge_names(model))
    for name in (BRIDGE, MANIFEST, LORA, WEIGHTS):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_the_bridge_holds_query_tokens_and_no_lora(tmp_path: Path) -> None:
    """Trap 2: PEFT neither trains nor saves the query tokens."""
    saved(tmp_path)
    keys = set(load_file(tmp_path / BRIDGE))
    assert "query_tokens" in keys
    assert not any("lora_" in key or key.startswith("vision_model") for key in keys)
    components = {entry["component"] for entry in read_manifest(tmp_path)["bridge"].values()}
    assert components == {"qformer", "query_tokens", "language_projection"}


def test_the_manifest_says_where_it_comes_from(tmp_path: Path) -> None:
    saved(tmp_path)
    manifest = read_manifest(tmp_path)
    assert manifest["base_weights_sha256"] == "a" * 64
    assert manifest["bridge"]["query_tokens"]["dtype"] == "float32"


def test_without_lora_there_is_a_bridge_alone(tmp_path: Path) -> None:
    model = saved(tmp_path, "frozen")
    assert not (tmp_path / LORA).exists()
    other, _ = built("frozen")
    restore_checkpoint(tmp_path, other, None)
    assert torch.equal(other.query_tokens, model.query_tokens)


def test_lora_on_one_side_only_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(CheckpointError, match="LoRA weights on one side only"):
        restore_checkpoint(tmp_path, built("frozen")[0], None)


def test_a_folder_without_a_manifest_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no manifest.json"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [("{", "damaged"), ('{"format": 99}', "format 99"), ("[]", "format None")],
)
def test_a_manifest_of_another_kind_is_refused(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(CheckpointError, match=problem):
        read_manifest(tmp_path)


def test_a_damaged_bridge_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    file = tmp_path / BRIDGE
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_bridge(tmp_path, read_manifest(tmp_path))


def test_a_bridge_with_other_keys_than_the_manifest_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    state = load_file(tmp_path / BRIDGE)
    del state["query_tokens"]
    save_file(state, tmp_path / BRIDGE)
    with pytest.raises(CheckpointError, match="1 keys differ from the manifest.*query_tokens"):
        read_bridge(tmp_path, read_manifest(tmp_path))


def test_a_missing_lora_file_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / WEIGHTS).unlink()
    model, handle = built()
    with pytest.raises(CheckpointError, match=f"no {WEIGHTS}"):
        restore_checkpoint(tmp_path, model, handle)


def test_lora_of_another_rank_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    model = init_tiny(0)
    handle = add_lora(model, resolve_targets(model, FAMILY, ["q_proj"]), r=3, lora_alpha=4)
    with pytest.raises(CheckpointError, match="size mismatch for .*q_proj.lora_A"):
        restore_checkpoint(tmp_path, model, handle)


def test_other_base_weights_are_refused() -> None:
    manifest = json.loads(json.dumps(PROVENANCE))
    check_base(manifest, base_id="x", weights_sha256="a" * 64)
    with pytest.raises(CheckpointError, match="has weights dddddddddddd.*base with weights aaaa"):
        check_base(manifest, base_id="x", weights_sha256="d" * 64)
