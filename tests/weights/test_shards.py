"""Writing shard by shard: the files of `save_pretrained`, and one weight in memory at a time."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Blip2ForConditionalGeneration, PreTrainedModel

import qvft.weights.write
from qvft.models.checkpoint_tensors import open_checkpoint
from qvft.models.reference_configs import meta_model
from qvft.weights.base_weights import StoredWeights, stored_weights
from qvft.weights.merge_inputs import MergeInputs, read_inputs
from qvft.weights.merge_plan import MergePlan, make_plan
from qvft.weights.write import verify_weights, write_shards
from tools.tiny_blip2.geometry import tiny_config

SIZE = "1MB"


@pytest.fixture(scope="module")
def found(drawn_run: Path) -> MergeInputs:
    return read_inputs(drawn_run)


@pytest.fixture(scope="module")
def skeleton() -> PreTrainedModel:
    return meta_model(tiny_config())


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16])
def base(request, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model in a type, in several files."""
    folder = tmp_path_factory.mktemp("base")
    model = Blip2ForConditionalGeneration.from_pretrained(tiny_folder, dtype=request.param)
    model.save_pretrained(folder, max_shard_size="3MB")
    return folder


def lazy(folder: Path, skeleton: PreTrainedModel) -> StoredWeights:
    weights = stored_weights(open_checkpoint(str(folder), where="model.id"), skeleton)
    assert weights is not None
    return weights


def plan_for(skeleton: PreTrainedModel, found: MergeInputs, dtype: torch.dtype) -> MergePlan:
    return make_plan(skeleton, bridge=found.bridge, lora=found.lora, dtype=dtype)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("model*")}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [SIZE, "5GB"])
def test_the_files_are_those_of_save_pretrained_byte_by_byte(
    base: Path, skeleton, found: MergeInputs, tmp_path: Path, dtype: torch.dtype, size: str
) -> None:
    plan = plan_for(skeleton, found, dtype)
    ours = tmp_path / "ours"
    ours.mkdir()
    parameters = skeleton.num_parameters()
    write_shards(ours, lazy(base, skeleton), plan, parameters=parameters, shard_size=size)
    model = Blip2ForConditionalGeneration.from_pretrained(base, dtype="auto")
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    for key in plan.outline():
        tensors[key].data = plan.value(key, tensors[key].data)
    model.save_pretrained(tmp_path / "theirs", max_shard_size=size)
    written = content(ours)
    assert written == content(tmp_path / "theirs")
    assert (len(written) > 3) == (size == SIZE)


class Alive:
    """Bytes of the weights that were handed out and are still held by somebody."""

    def __init__(self) -> None:
        self.now = self.peak = self.total = 0

    def watch(self, tensor: Tensor) -> Tensor:
        self.now += tensor.nbytes
        self.total += tensor.nbytes
        self.peak = max(self.peak, self.now)
        weakref.finalize(tensor, self._leave, tensor.nbytes)
        return tensor

    def _leave(self, size: int) -> None:
        self.now -= size


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> Alive:
    """Counts what is read of the base, what the plan makes of it, and what is read back."""
    counted = Alive()
    read, value = StoredWeights.__getitem__, MergePlan.value
    back = qvft.weights.write.written_tensors

    def watched_read(self: StoredWeights, key: str) -> Tensor:
        return counted.watch(read(self, key))

    def watched_value(self: MergePlan, key: str, weight: Tensor) -> Tensor:
        made = value(self, key, weight)
        held = made is weight or made is self.bridge.get(key)
        return made if held else counted.watch(made)

    def watched_back(folder: Path) -> Iterator[tuple[str, Tensor]]:
        return ((key, counted.watch(tensor)) for key, tensor in back(folder))

    monkeypatch.setattr(StoredWeights, "__getitem__", watched_read)
    monkeypatch.setattr(MergePlan, "value", watched_value)
    monkeypatch.setattr(qvft.weights.write, "written_tensors", watched_back)
    return counted


@pytest.mark.parametrize("size", [SIZE, "5GB"])
def test_writing_and_verifying_hold_a_weight_or_two_whatever_the_shards_size(
    tiny_folder: Path, skeleton, found: MergeInputs, tmp_path: Path, alive: Alive, size: str
) -> None:
    plan = plan_for(skeleton, found, torch.float32)
    weights: Any = lazy(tiny_folder, skeleton)
    assert alive.total == 0  # nothing was read to find out what there is
    largest = max(tensor.nbytes for tensor in plan.outline().values())
    whole = sum(tensor.nbytes for tensor in plan.outline().values())
    parameters = skeleton.num_parameters()
    write_shards(tmp_path, weights, plan, parameters=parameters, shard_size=size)
    assert alive.total >= whole > 10 * largest
    assert alive.peak <= 2 * largest  # the base's weight and the merged one
    verify_weights(tmp_path, weights, plan)
    assert alive.total >= 3 * whole
    # Two pairs: the loop has the last weights until it has the next.
    assert alive.peak <= 4 * largest
    assert alive.now == 0
