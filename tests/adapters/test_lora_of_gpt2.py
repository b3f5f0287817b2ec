"""LoRA on GPT-2's layers, whose weights are stored (in, out)."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, GPT2Config
from transformers.pytorch_utils import Conv1D

from qvft.adapters.lora import add_lora, load_lora, restore_lora, save_lora
from qvft.adapters.lora_weights import LoraWeight, read_lora
from qvft.adapters.targets import linear_names, resolve_targets, stored_transposed
from qvft.errors import CheckpointError, RecipeError
from qvft.models.families import FAMILIES
from qvft.models.qvision.configuration import QVisionConfig
from qvft.models.qvision.modeling import QVisionForConditionalGeneration
from qvft.weights.merge_plan import make_plan
from qvft.weights.tolerance import jitter

FAMILY = FAMILIES["qvision"]
NAMES = ["c_attn", "c_fc", "c_proj"]
KINDS = [{}, {"use_rslora": True}, {"use_dora": True}]
BLOCK = "language_model.transformer.h.0"


@pytest.fixture(scope="module")
def base() -> QVisionForConditionalGeneration:
    """A QVision of two GPT-2 blocks 16 wide, with weights large enough that the image is felt."""
    tower = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        image_size=16, patch_size=8,
    )  # fmt: skip
    words = GPT2Config(
        vocab_size=31, n_embd=16, n_layer=2, n_head=2, n_positions=16, initializer_range=0.1,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    config = QVisionConfig(
        tower, words, qformer_hidden_size=16, qformer_num_heads=2, num_query_tokens=2,
        initializer_range=0.1,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return QVisionForConditionalGeneration(config).eval()


def adapted(base: nn.Module, **kind: bool):
    """A copy with adapters on all targets, their weights drawn; and PEFT's handle on it."""
    model = copy.deepcopy(base)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)  # PEFT draws the first matrices
        handle = add_lora(model, resolve_targets(model, FAMILY, NAMES), r=2, lora_alpha=4, **kind)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model, handle


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randn(2, 3, 16, 16, generator=generator)
    ids = torch.randint(3, 31, (2, 7), generator=generator)
    given = model(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels)
    return given.logits


def test_its_names_are_offered_and_reach_attention_and_both_layers_of_the_block(base) -> None:
    assert linear_names(base, FAMILY) == NAMES
    found = resolve_targets(base, FAMILY, ["c_proj", "c_attn"])
    wanted = ["attn.c_attn", "attn.c_proj", "mlp.c_proj"]
    assert found[:3] == [f"{BLOCK}.{name}" for name in wanted] and len(found) == 2 * 3


@pytest.mark.parametrize(
    ("name", "said"),
    [("c_atn", 'did you mean "c_attn"'), ("q_proj", "or a list of c_attn, c_fc, c_proj")],
)
def test_a_name_that_it_has_not_is_an_error_with_those_it_has(base, name: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        resolve_targets(base, FAMILY, [name])


@pytest.mark.parametrize("kind", KINDS)
def test_peft_is_told_how_the_weights_are_stored_and_has_nothing_to_warn_of(
    base, tmp_path: Path, kind: dict[str, bool]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, handle = adapted(base, **kind)
        save_lora(handle, tmp_path)
        load_lora(copy.deepcopy(base), tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["fan_in_fan_out"] is True


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_adapter_is_the_same_again(base, tmp_path: Path, kind: dict[str, bool]) -> None:
    model, handle = adapted(base, **kind)
    save_lora(handle, tmp_path)
    again = copy.deepcopy(base)
    load_lora(again, tmp_path)
    fresh = copy.deepcopy(base)
    restored = add_lora(fresh, resolve_targets(fresh, FAMILY, NAMES), r=2, lora_alpha=4, **kind)
    restore_lora(restored, tmp_path)
    assert torch.equal(logits(again), logits(model))
    assert torch.equal(logits(fresh), logits(model))


@pytest.mark.parametrize("kind", KINDS)
def test_the_merged_model_says_what_the_adapter_says(
    base, tmp_path: Path, kind: dict[str, bool]
) -> None:
    model, handle = adapted(base, **kind)
    save_lora(handle, tmp_path)
    merged = copy.deepcopy(base)
    plan = make_plan(merged, bridge={}, lora=read_lora(tmp_path), dtype=torch.float32)
    assert plan.counts()["lora"] == 2 * 4
    state = dict(merged.named_parameters()) | dict(merged.named_buffers())
    for key in plan.outline():
        state[key].data = plan.value(key, state[key].data)
    # Sums in another order: floats of size 1 are 6e-8 apart, products are 64 long at most, and
    # the logits are below 10; the adapter moves them by more than 0.1.
    assert (logits(merged) - logits(model)).abs().max() < 1e-5
    assert (logits(base) - logits(model)).abs().max() > 0.1


def test_by_arithmetic_the_delta_is_added_transposed() -> None:
    a, b = torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[3.0], [5.0]])
    layer = LoraWeight(a, b, 0.5, None, transposed=True)
    assert layer.shape == (3, 2)
    assert layer.merged(torch.zeros(3, 2)).tolist() == [[1.5, 2.5], [3.0, 5.0], [0.0, 0.0]]


def test_by_arithmetic_dora_scales_each_column_to_its_magnitude() -> None:
    # The columns of W + sBA, one an output, are (3, 4) and (0, 2): lengths 5 and 2.
    a, b = torch.zeros(1, 2), torch.zeros(2, 1)
    layer = LoraWeight(a, b, 1.0, torch.tensor([10.0, 1.0]), transposed=True)
    merged = layer.merged(torch.tensor([[3.0, 0.0], [4.0, 2.0]]))
    assert merged.tolist() == [[6.0, 0.0], [8.0, 1.0]] and merged.is_contiguous()


@pytest.mark.parametrize("transposed", [False, True])
def test_an_adapter_for_weights_stored_the_other_way_is_refused_though_they_are_square(
    transposed: bool,
) -> None:
    base = nn.ModuleDict({"layer": nn.Linear(2, 2) if transposed else Conv1D(2, 2)})
    layer = LoraWeight(torch.ones(1, 2), torch.ones(2, 1), 1.0, None, transposed=transposed)
    with pytest.raises(CheckpointError, match=r"layer\.weight is for a weight stored"):
        make_plan(base, bridge={}, lora={"layer.weight": layer}, dtype=torch.float32)


def test_targets_of_both_kinds_are_refused() -> None:
    model = nn.ModuleDict({"one": Conv1D(2, 2), "two": nn.Linear(2, 2)})
    assert stored_transposed(model, ["one"]) and not stored_transposed(model, ["two"])
    with pytest.raises(RecipeError, match=r"1 of 2 weights stored \(in, out\), first that of one"):
        stored_transposed(model, ["one", "two"])


def test_a_four_bit_layer_counts_as_the_layer_it_was_made_from() -> None:
    layer = nn.Linear(2, 2)
    layer.source_cls = Conv1D  # where transformers notes it
    assert stored_transposed(nn.ModuleDict({"c_fc": layer}), ["c_fc"])


def test_the_errors_of_a_product_come_from_as_many_terms_as_it_sums() -> None:
    """A Conv1D of 4 inputs and 10,000 outputs sums 4 terms: 3 unit roundoffs, not 101."""
    layer = Conv1D(10_000, 4)
    exact = layer.weight.detach().clone()
    jitter(nn.ModuleDict({"layer": layer}), set(), written=torch.bfloat16, computed=torch.float32)
    off = ((layer.weight - exact) / exact).square().mean().sqrt()
    # 40,000 draws give the spread to half a percent; storing each rounds it, by 2**-24 at most.
    assert 2.5 * 2**-24 < off < 3.5 * 2**-24


def test_every_such_layer_of_the_model_is_a_target(base) -> None:
    turned = {name for name, layer in base.named_modules() if isinstance(layer, Conv1D)}
    assert turned == set(resolve_targets(base, FAMILY, NAMES))
