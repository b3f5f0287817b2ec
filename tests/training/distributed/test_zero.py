"""What a launcher may ask of ZeRO, and what is said where DeepSpeed is absent."""

from __future__ import annotations

import os
from importlib.machinery import ModuleSpec

import pytest
import torch
from torch import nn

from qvft.errors import RecipeError
from qvft.models.distributed import DEEPSPEED, processes
from qvft.training.distributed import zero
from qvft.training.distributed.zero import Zero, zero_stage


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment of a launcher that asks for DeepSpeed, put back afterwards."""
    monkeypatch.setenv(DEEPSPEED, "false")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setattr(zero, "find_spec", lambda name: ModuleSpec(name, None))
    return monkeypatch


def test_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DEEPSPEED, raising=False)
    monkeypatch.delenv("ACCELERATE_USE_DEEPSPEED", raising=False)
    assert zero_stage() == 0


def test_deepspeed_is_noted_and_hidden_from_accelerate(launcher: pytest.MonkeyPatch) -> None:
    processes()
    assert "ACCELERATE_USE_DEEPSPEED" not in os.environ
    launcher.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "1")
    assert (zero_stage(), zero_stage()) == (1, 1)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ZERO_STAGE", "3", "recipes/accelerate/fsdp.yaml"),
        ("ZERO_STAGE", "0", "recipes/accelerate/ddp.yaml"),
        ("OFFLOAD_OPTIMIZER_DEVICE", "cpu", "offload_optimizer_device: cpu"),
        ("OFFLOAD_PARAM_DEVICE", "nvme", "offload_param_device: nvme"),
        ("CONFIG_FILE", "zero.json", "config_file: zero.json"),
    ],
)
def test_what_is_not_done_is_refused(
    launcher: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    launcher.setenv(f"ACCELERATE_DEEPSPEED_{name}", value)
    with pytest.raises(RecipeError, match=said):
        zero_stage()


def test_without_deepspeed_it_says_what_to_install(launcher: pytest.MonkeyPatch) -> None:
    launcher.setattr(zero, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"pip install .qvft\[zero\]"):
        zero_stage()


def test_an_optimizer_whose_state_is_not_by_weight_is_refused() -> None:
    layer = nn.Linear(2, 2)
    adafactor = torch.optim.Adafactor(layer.parameters())
    with pytest.raises(RecipeError, match="Adafactor under ZeRO"):
        Zero(layer, adafactor, stage=2, clip=1.0)
