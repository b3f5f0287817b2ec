"""What is kept for the backward pass: bytes by arithmetic, the same gradients, nothing frozen."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from qvft.adapters.lora import add_lora
from qvft.recipe.load import load_recipe
from qvft.train import main
from qvft.training.activations import NormInOwnType, lean_activations
from qvft.training.arguments import recompute_activations
from qvft.training.objectives.language import LanguageModelling
from qvft.training.prepare_training import prepare_training

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "studies" / "activations.py"
WIDTH, RANK, HEADS, TOKENS = 64, 16, 4, 12


@pytest.fixture(scope="module")
def study() -> ModuleType:
    spec = importlib.util.spec_from_file_location("activations_study", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def block_bytes(adapters: int, inputs: int) -> int:
    """Of a block and token, in bfloat16: two norms' input; queries, keys, values and what attention
    makes of them; what ReLU leaves of four times the width; `inputs` more that adapters read; what
    lies between A and B. Attention's log-sum-exp is float32; mean and deviation of two norms."""
    return 2 * WIDTH * (2 + 4 + 4 + inputs) + 2 * RANK * adapters + 4 * HEADS + 2 * 2 * 2


@pytest.mark.parametrize("gpu", [False, True], ids=["CPU rules", "GPU rules"])
@pytest.mark.parametrize("nf4", [False, True], ids=["bfloat16", "nf4"])
def test_an_adapted_token_keeps_nothing_in_float32_and_nothing_twice(
    study: ModuleType, gpu: bool, nf4: bool
) -> None:
    """The output of the first norm is the one input more that q_proj and v_proj read."""
    found = study.per_token(WIDTH, TOKENS, lean=True, gpu=gpu, nf4=nf4)
    assert found["block"] == block_bytes(2, 1)


def test_adapters_on_all_layers_keep_one_input_more(study: ModuleType) -> None:
    """fc1's: attention's output and ReLU's are kept in any case."""
    found = study.per_token(WIDTH, TOKENS, lean=True, gpu=True, targets=study.ALL)
    assert found["block"] == block_bytes(6, 2)


def test_as_peft_comes_each_adapter_keeps_an_input_of_its_own(study: ModuleType) -> None:
    found = study.per_token(WIDTH, TOKENS, lean=False, gpu=False)
    assert found["block"] == block_bytes(2, 2)


def test_autocast_on_a_gpu_would_keep_norms_in_float32(study: ModuleType) -> None:
    """Input and statistics twice as wide."""
    found = study.per_token(WIDTH, TOKENS, lean=False, gpu=True)
    assert found["block"] == block_bytes(2, 2) + 2 * 2 * WIDTH + 2 * 2 * 2


def gradients(model: nn.Module, *, lean: bool) -> dict[str, Tensor]:
    """Of the adapters and of the input, for a fixed input."""
    generator = torch.Generator().manual_seed(1)
    shape = (2, TOKENS, WIDTH)
    x = torch.randn(shape, generator=generator).bfloat16().requires_grad_()
    model.zero_grad()
    with lean_activations(model, active=lean):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = model.get_decoder()(inputs_embeds=x, use_cache=False).last_hidden_state
        hidden.float().square().mean().backward()
    named = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {**named, "input": x.grad}


@pytest.mark.parametrize("nf4", [False, True], ids=["bfloat16", "nf4"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
def test_lean_gradients_are_those_of_casting(
    study: ModuleType, nf4: bool, checkpointing: bool
) -> None:
    model = study.decoder(WIDTH, 2, targets=study.ALL, nf4=nf4)
    casting = gradients(model, lean=False)
    recompute_activations(model, checkpointing)
    lean = gradients(model, lean=True)
    assert casting.keys() == lean.keys()
    assert sum(".lora_" in name for name in lean) == 2 * 2 * 6
    for name, expected in casting.items():
        assert lean[name].dtype == (torch.bfloat16 if name == "input" else torch.float32)
        # The same bfloat16 products; several gradients of one input may be added in another order,
        # each sum rounded to 8 bits: a few times 2^-9 of the largest.
        spread = float(expected.abs().max()) * 2**-6
        torch.testing.assert_close(lean[name], expected, rtol=0, atol=spread, msg=name)
        assert spread > 0


def test_everything_is_as_before_afterwards(study: ModuleType) -> None:
    model = study.decoder(WIDTH, 1)
    names = list(model.state_dict())
    x = torch.randn(1, TOKENS, WIDTH, dtype=torch.bfloat16)
    before = model.get_decoder()(inputs_embeds=x).last_hidden_state
    with pytest.raises(KeyError), lean_activations(model, active=True):
        assert list(model.state_dict()) == names
        raise KeyError
    assert not any(isinstance(module, NormInOwnType) for module in model.modules())
    # outside of autocast a layer that does not cast would fail on its input's type
    assert torch.equal(model.get_decoder()(inputs_embeds=x).last_hidden_state, before)


def test_without_autocast_layers_cast(study: ModuleType) -> None:
    model = study.decoder(WIDTH, 1)
    x = torch.randn(1, TOKENS, WIDTH, dtype=torch.bfloat16)
    with lean_activations(model, active=False):
        model.get_decoder()(inputs_embeds=x)


def test_dora_still_measures_its_weight_in_float32(study: ModuleType) -> None:
    model = nn.Sequential(nn.Linear(8, 8)).bfloat16().requires_grad_(False)
    add_lora(model, ["0"], r=2, lora_alpha=2, use_dora=True)
    with lean_activations(model, active=True):
        assert model[0].cast_input_dtype_enabled
    plain = study.decoder(WIDTH, 1)
    with lean_activations(plain, active=True):
        layer = plain.get_decoder().layers[0].self_attn.q_proj
        assert not layer.cast_input_dtype_enabled


def test_nothing_frozen_is_in_the_graph(recipe_file: Path) -> None:
    work = prepare_training(load_recipe(recipe_file, ["model.dtype=bfloat16"]))
    plan = work.plans[0]
    work.counts(plan)
    rows = work.rows(plan, work.train, training=True)
    module, collator = work.objective(plan, rows)
    assert isinstance(module, LanguageModelling)
    vision = module.train().model.vision_model
    assert not any(part.training for part in vision.modules())
    batch = collator(list(enumerate(rows[:4])))
    del batch["row_index"]
    seen = vision.register_forward_hook(lambda *found: outputs.append(found[-1]))
    outputs: list = []
    with lean_activations(module, active=True), torch.autocast("cpu", dtype=torch.bfloat16):
        loss = module(**batch)["loss_sum"]
    seen.remove()
    assert outputs and outputs[0].last_hidden_state.grad_fn is None
    leaves = leaves_of(loss)
    trained = {p for p in module.parameters() if p.requires_grad}
    assert leaves == trained


def leaves_of(loss: Tensor) -> set[Tensor]:
    """The tensors in which the graph behind a loss ends."""
    found, seen, waiting = set(), set(), [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(node.variable)
        waiting += [after for after, _ in node.next_functions]
    return found


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
def test_training_under_autocast_is_lean(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpointing: bool
) -> None:
    seen: list[tuple[set[bool], set[bool]]] = []
    forward = LanguageModelling.forward

    def watching(self: LanguageModelling, **batch: Tensor) -> dict[str, Tensor]:
        decoder = self.model.language_model
        casts = {m.cast_input_dtype_enabled for m in decoder.modules() if isinstance(m, LoraLayer)}
        norms = [m for m in decoder.modules() if isinstance(m, nn.LayerNorm)]
        seen.append((casts, {isinstance(norm, NormInOwnType) for norm in norms}))
        return forward(self, **batch)

    monkeypatch.setattr(LanguageModelling, "forward", watching)
    given = ["model.dtype=bfloat16", "train.mixed_precision=bf16", "train.max_steps=2"]
    given.append(f"train.gradient_checkpointing={str(checkpointing).lower()}")
    assert main([str(recipe_file), f"run.dir={tmp_path}", *given]) == 0
    assert seen[-2:] == [({False}, {True})] * 2
