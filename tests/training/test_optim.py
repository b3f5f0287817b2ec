"""Parameter groups: a learning rate a component, decay for matrices only."""

from typing import Any

import pytest
import torch
from torch import nn

from qvft.adapters.freeze import mark_trainable
from qvft.adapters.lora import add_lora
from qvft.adapters.targets import resolve_targets
from qvft.models.families import FAMILIES
from qvft.recipe.train import LearningRates
from qvft.training.objectives.language import LanguageModelling
from qvft.training.optim import keep_embeddings_in_32_bits, parameter_groups
from tools.tiny_blip2.geometry import init_tiny

FAMILY = FAMILIES["blip2"]
RATES = {
    "vision": 1.0,
    "qformer": 2.0,
    "query_tokens": 3.0,
    "language_projection": 4.0,
    "decoder": 5.0,
    "adapters": 6.0,
    "heads": 7.0,
}


@pytest.fixture(scope="module")
def model() -> Any:
    model = init_tiny(0)
    add_lora(model, resolve_targets(model, FAMILY, ["q_proj"]), r=2, lora_alpha=4)
    return model


def groups(model: Any, *, vision: str = "frozen", decoder: str = "lora") -> list[dict[str, Any]]:
    modes = {"qformer": "full", "query_tokens": "full", "language_projection": "full"}
    mark_trainable(model, FAMILY, {**modes, "vision": vision, "decoder": decoder})
    return parameter_groups(LanguageModelling(model), FAMILY, RATES, weight_decay=0.05)


def test_every_trained_weight_is_in_one_group_and_no_other(model: Any) -> None:
    found = [id(parameter) for group in groups(model) for parameter in group["params"]]
    trained = [id(p) for p in model.parameters() if p.requires_grad]
    assert sorted(found) == sorted(trained)


@pytest.mark.parametrize(("vision", "decoder"), [("frozen", "lora"), ("full", "full")])
def test_each_component_has_its_own_learning_rate(model: Any, vision: str, decoder: str) -> None:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in groups(model, vision=vision, decoder=decoder):
        for parameter in group["params"]:
            assert group["lr"] == RATES[FAMILY.component(names[id(parameter)])]


def test_biases_norms_and_query_tokens_do_not_decay(model: Any) -> None:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in groups(model, vision="full", decoder="full"):
        for parameter in group["params"]:
            name = names[id(parameter)]
            spared = parameter.dim() < 2 or name == "query_tokens" or "embed_pos" in name
            assert group["weight_decay"] == (0.0 if spared else 0.05), name


def test_what_lies_outside_the_model_is_a_head(model: Any) -> None:
    objective = LanguageModelling(model)
    objective.heads = nn.Linear(3, 2)
    mark_trainable(model, FAMILY, dict.fromkeys(RATES, "frozen"))
    found = parameter_groups(objective, FAMILY, RATES, weight_decay=0.05)
    assert [(group["lr"], group["weight_decay"], len(group["params"])) for group in found] == [
        (7.0, 0.0, 1),
        (7.0, 0.05, 1),
    ]


def test_wrapping_for_several_processes_changes_nothing(model: Any) -> None:
    plain = groups(model)
    wrapped = nn.Module()
    wrapped.module = LanguageModelling(model)
    again = parameter_groups(wrapped, FAMILY, RATES, weight_decay=0.05)
    assert [(g["name"], g["lr"], len(g["params"])) for g in again] == [
        (g["name"], g["lr"], len(g["params"])) for g in plain
    ]


def test_the_recipe_names_a_rate_for_every_kind_of_group() -> None:
    assert set(LearningRates.model_fields) == set(RATES)


def test_moments_of_embeddings_stay_in_32_bits() -> None:
    """bitsandbytes keeps those of at most 4,096 values in 32 bits anyway."""
    from bitsandbytes.optim import AdamW8bit

    module = nn.Sequential(nn.Embedding(80, 64), nn.Linear(64, 80, bias=False))
    optimizer = AdamW8bit(module.parameters(), lr=1e-3)
    keep_embeddings_in_32_bits(module)
    module(torch.arange(80)).square().sum().backward()
    optimizer.step()
    kept = [optimizer.state[weight]["state1"].dtype for weight in module.parameters()]
    assert kept == [torch.float32, torch.uint8]
