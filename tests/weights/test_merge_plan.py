"""The plan: every key accounted for, nothing matched by chance, values rounded once."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qvft.adapters.lora_weights import LoraWeight
from qvft.errors import CheckpointError
from qvft.weights.merge_plan import make_plan


class Model(nn.Module):
    """An embedding (4, 2) tied to a head, a linear layer 2 to 3 and a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(4, 2)
        self.layer = nn.Linear(2, 3)
        self.qformer = nn.Linear(2, 2)
        self.head = nn.Linear(2, 4, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("counter", torch.tensor([70_000]))


def lora(*, b: float = 1.0, rows: int = 3) -> LoraWeight:
    return LoraWeight(torch.ones(1, 2), torch.full((rows, 1), b), 1.0, None)


def plan(model: nn.Module, *, bridge=None, layers=None, dtype=torch.float32):
    return make_plan(model, bridge=bridge or {}, lora=layers or {}, dtype=dtype)


def test_every_key_has_one_fate() -> None:
    made = plan(Model(), bridge={"layer.bias": torch.zeros(3)}, layers={"layer.weight": lora()})
    assert made.actions == {
        "embed.weight": "untouched",
        "layer.weight": "lora",
        "layer.bias": "bridge",
        "qformer.weight": "untouched",
        "qformer.bias": "untouched",
        "head.weight": "tied",
        "counter": "untouched",
    }
    assert made.owners == {"head.weight": "embed.weight"}
    assert made.counts() == {"bridge": 1, "lora": 1, "untouched": 4, "tied": 1}


@pytest.mark.parametrize(
    ("bridge", "layers", "message"),
    [
        ({"odd.bias": torch.zeros(3)}, {}, "odd.bias has no place"),
        ({"layer.bias": torch.zeros(2)}, {}, r"is \(2,\); expected \(3,\)"),
        ({"head.weight": torch.zeros(4, 2)}, {}, "tied and bridge"),
        ({"layer.weight": torch.zeros(3, 2)}, {"layer.weight": lora()}, "bridge and lora"),
        ({}, {"embed.weight": lora(rows=4)}, "shared by two layers"),
        ({}, {"layer.weight": lora(rows=2)}, r"is \(2, 2\); expected \(3, 2\)"),
    ],
)
def test_what_does_not_fit_is_refused(bridge, layers, message) -> None:
    with pytest.raises(CheckpointError, match=message):
        plan(Model(), bridge=bridge, layers=layers)


def test_a_merged_weight_is_rounded_once() -> None:
    model = Model()
    # bfloat16 has 1 and 1 + 2^-7 and nothing between: the sum is nearer to the second, though the
    # base alone would have been rounded to the first.
    weight = torch.full((3, 2), 1 + 2**-8)
    made = plan(model, layers={"layer.weight": lora(b=2**-9)}, dtype=torch.bfloat16)
    merged = made.value("layer.weight", weight)
    assert merged.dtype == torch.bfloat16
    assert set(merged.flatten().tolist()) == {1 + 2**-7}


def test_a_tied_weight_is_written_once_and_a_counter_stays_whole() -> None:
    model = Model()
    embedding = torch.ones(4, 2)
    made = plan(model, bridge={"embed.weight": embedding}, dtype=torch.float16)
    assert set(made.outline()) == set(model.state_dict()) - {"head.weight"}
    assert torch.equal(made.value("embed.weight", model.embed.weight), embedding.half())
    assert made.value("counter", model.counter).tolist() == [70_000]


def test_untouched_weights_keep_their_bits() -> None:
    state = Model().state_dict()
    made = plan(Model())
    assert all(torch.equal(made.value(key, state[key]), state[key]) for key in made.outline())


def test_a_model_without_memory_has_the_same_plan() -> None:
    layers, bridge = {"layer.weight": lora()}, {"layer.bias": torch.zeros(3)}
    with torch.device("meta"):
        skeleton = Model()
    assert all(tensor.is_meta for tensor in skeleton.state_dict().values())
    made = plan(skeleton, bridge=bridge, layers=layers, dtype=torch.bfloat16)
    assert made == plan(Model(), bridge=bridge, layers=layers, dtype=torch.bfloat16)
    described = {key: (one.dtype, one.shape) for key, one in made.outline().items()}
    assert described == {
        "embed.weight": (torch.bfloat16, (4, 2)),
        "layer.weight": (torch.bfloat16, (3, 2)),
        "layer.bias": (torch.bfloat16, (3,)),
        "qformer.weight": (torch.bfloat16, (2, 2)),
        "qformer.bias": (torch.bfloat16, (2,)),
        "counter": (torch.int64, (1,)),
    }


def test_parts_that_transformers_keeps_in_float32_are_written_so_beside_float16() -> None:
    model = Model()
    model._keep_in_fp32_modules = {"qformer"}
    assert plan(model, dtype=torch.float16).dtypes["qformer.weight"] == torch.float32
    assert plan(model, dtype=torch.float16).dtypes["layer.weight"] == torch.float16
    assert plan(model, dtype=torch.bfloat16).dtypes["qformer.weight"] == torch.bfloat16


def test_a_weight_too_large_for_the_type_is_refused() -> None:
    bias = torch.zeros(3)
    for large in (1e5, -1e5):
        trained = {"layer.bias": torch.tensor([0, large, 0])}
        made = plan(Model(), bridge=trained, dtype=torch.float16)
        with pytest.raises(CheckpointError, match="float16 cannot hold"):
            made.value("layer.bias", bias)


def test_only_what_changes_is_rounded_unless_the_type_narrows() -> None:
    made = plan(Model(), bridge={"layer.bias": torch.zeros(3)})
    assert made.rounded(torch.float32) == {"layer.bias"}
    made = plan(Model(), dtype=torch.bfloat16)
    assert "embed.weight" in made.rounded(torch.float32)
    assert made.rounded(torch.bfloat16) == set()
