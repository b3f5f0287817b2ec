"""LoRA targets: exact names of the decoder's linear layers, or an error."""

import pytest
from torch import nn

from qvft.adapters.targets import linear_names, resolve_targets
from qvft.errors import RecipeError
from qvft.models.families import FAMILIES
from tools.tiny_blip2.geometry import init_tiny

FAMILY = FAMILIES["blip2"]
ALL = ["fc1", "fc2", "k_proj", "out_proj", "q_proj", "v_proj"]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return init_tiny(0)


def test_the_names_offered_are_the_decoders(model: nn.Module) -> None:
    assert linear_names(model, FAMILY) == ALL


def test_a_name_becomes_one_layer_a_block(model: nn.Module) -> None:
    blocks = model.config.text_config.num_hidden_layers
    assert resolve_targets(model, FAMILY, ["v_proj"]) == [
        f"language_model.model.decoder.layers.{block}.self_attn.v_proj" for block in range(blocks)
    ]


def test_all_names_together_leave_vit_qformer_and_projection_alone(model: nn.Module) -> None:
    """Trap 3: PEFT's own `all-linear` would reach them."""
    found = resolve_targets(model, FAMILY, ALL)
    assert found == resolve_targets(model, FAMILY, "all-linear")
    assert len(found) == 6 * model.config.text_config.num_hidden_layers
    assert all(name.startswith("language_model.model.decoder.layers.") for name in found)


def test_a_name_that_matches_nothing_is_an_error_with_the_nearest_one(model: nn.Module) -> None:
    with pytest.raises(
        RecipeError, match=r'trainable\.lora\.target_modules.*did you mean "q_proj"'
    ):
        resolve_targets(model, FAMILY, ["v_proj", "q_poj"])


@pytest.mark.parametrize("name", ["query", "lm_head", "layers", "embed_tokens", ""])
def test_names_outside_the_blocks_linear_layers_are_errors(model: nn.Module, name: str) -> None:
    with pytest.raises(RecipeError, match="is not a linear layer of the decoder"):
        resolve_targets(model, FAMILY, [name])
