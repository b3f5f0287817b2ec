"""Attention weights of a pass, and that a model attends afterwards as it did before."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from qvft.errors import ModelError, QvftError
from qvft.models.attention_capture import attention_kernels, eager_attention
from qvft.models.attention_maps import attend
from qvft.models.base_checkpoint import find_checkpoint
from qvft.models.forward_stages import decode_hidden, embed_rows, encode_images
from qvft.models.load import load_model

B, Q, P, WORDS = 2, 12, 16, 5
LENGTH = Q + WORDS
ROUNDING = 1e-5  # of float32 sums over at most 17 weights, whose error is below 17 * 2^-24 = 1e-6


@pytest.fixture(params=[None, "fresh"], ids=["blip2", "blip2_question"])
def model(request, tiny_folder: Path):
    base = find_checkpoint(str(tiny_folder), text_branch=request.param)
    return load_model(base, dtype=torch.float32)


@pytest.fixture
def blip2(tiny_folder: Path):
    return load_model(find_checkpoint(str(tiny_folder)), dtype=torch.float32)


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randn(B, 3, 48, 48, generator=torch.Generator().manual_seed(0))


def rows_for(model) -> dict[str, torch.Tensor]:
    """Two rows, the second two tokens shorter; a Q-Former that reads is given three tokens."""
    ids = torch.full((B, LENGTH), model.config.image_token_id)
    ids[:, Q:] = torch.tensor([[2, 40, 41, 42, 43], [2, 50, 51, 1, 1]])
    mask = torch.ones(B, LENGTH, dtype=torch.long)
    mask[1, -2:] = 0
    rows = {"input_ids": ids, "attention_mask": mask}
    if model.config.model_type == "instructblip":
        rows["qformer_input_ids"] = torch.tensor([[7, 8, 9], [9, 8, 7]])
        rows["qformer_attention_mask"] = torch.ones(B, 3, dtype=torch.long)
    return rows


@torch.no_grad()
def hidden_states(model, pixels: torch.Tensor) -> torch.Tensor:
    rows = rows_for(model)
    embeds = embed_rows(
        model, rows, images=encode_images(model, pixels), image_index=torch.arange(B)
    )
    return decode_hidden(model, embeds, rows["attention_mask"])


def test_shapes_and_layers(model, pixels: torch.Tensor) -> None:
    found = attend(model, pixels, rows_for(model))
    assert found.text.shape == (3, B, LENGTH, LENGTH)
    assert found.cross.shape == (3, B, Q, P + 1)
    assert found.queries.shape == (B, Q, 128)
    assert (found.grid, found.has_class_token) == ((4, 4), True)
    first = torch.arange(LENGTH) < Q
    assert torch.equal(found.is_query, first.expand(B, -1))
    assert found.text_layers == found.cross_layers == (0, 1, 2)


def test_rows_sum_to_one_and_no_position_sees_later_ones(model, pixels: torch.Tensor) -> None:
    found = attend(model, pixels, rows_for(model))
    real = rows_for(model)["attention_mask"].bool()
    sums = found.text.sum(dim=-1)[:, real]
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=ROUNDING)
    sums = found.cross.sum(dim=-1)
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=ROUNDING)
    assert found.text.triu(1).count_nonzero() == 0


def test_without_preferences_attention_is_even(blip2, pixels: torch.Tensor) -> None:
    """Zero queries score every key the same: position t of a row sees t + 1 alike, P + 1 keys."""
    decoder = blip2.language_model.get_decoder().layers
    crossing = [layer.crossattention.attention for layer in blip2.qformer.encoder.layer]
    with torch.no_grad():
        for module in [
            *(layer.self_attn.q_proj for layer in decoder),
            *(c.query for c in crossing),
        ]:
            module.weight.zero_()
            module.bias.zero_()
    found = attend(blip2, pixels, rows_for(blip2))
    even = torch.ones(LENGTH, LENGTH).tril() / torch.arange(1, LENGTH + 1).view(-1, 1)
    torch.testing.assert_close(found.text[:, 0], even.expand(3, -1, -1), rtol=0, atol=ROUNDING)
    torch.testing.assert_close(
        found.cross, torch.full_like(found.cross, 1 / (P + 1)), rtol=0, atol=ROUNDING
    )


def test_cross_attention_is_the_mean_over_heads_of_softmax(blip2, pixels: torch.Tensor) -> None:
    """The last layer's by hand, from what goes into it."""
    module = blip2.qformer.encoder.layer[2].crossattention.attention
    seen: dict[str, torch.Tensor] = {}

    def keep(module, inputs, given, output) -> None:
        seen.update(given)

    handle = module.register_forward_hook(keep, with_kwargs=True)
    found = attend(blip2, pixels, rows_for(blip2))
    handle.remove()
    with torch.no_grad():
        queries = module.query(seen["hidden_states"]).view(B, Q, 4, 32).transpose(1, 2)
        keys = module.key(seen["encoder_hidden_states"]).view(B, P + 1, 4, 32).transpose(1, 2)
    weights = (queries @ keys.transpose(2, 3) / 32**0.5).softmax(dim=-1)
    torch.testing.assert_close(found.cross[2], weights.mean(dim=1), rtol=0, atol=ROUNDING)


def test_a_short_row_attends_as_it_does_alone(model, pixels: torch.Tensor) -> None:
    rows, together = rows_for(model), attend(model, pixels, rows_for(model))
    alone = {key: value[1:] for key, value in rows.items()}
    alone |= {key: alone[key][:, :-2] for key in ("input_ids", "attention_mask")}
    short = LENGTH - 2
    found = attend(model, pixels[1:], alone)
    torch.testing.assert_close(
        found.text[:, 0], together.text[:, 1, :short, :short], rtol=0, atol=ROUNDING
    )


def test_outputs_and_kernels_are_those_of_before(model, pixels: torch.Tensor) -> None:
    before, kernels = hidden_states(model, pixels), attention_kernels(model)
    assert set(kernels.values()) == {"sdpa"}
    attend(model, pixels, rows_for(model))
    assert attention_kernels(model) == kernels
    assert torch.equal(hidden_states(model, pixels), before)
    assert not any(module._forward_hooks for module in model.modules())


def test_the_eager_pass_computes_what_the_model_does(model, pixels: torch.Tensor) -> None:
    before = hidden_states(model, pixels)
    with eager_attention(model):
        assert set(attention_kernels(model).values()) == {"eager"}
        eager = hidden_states(model, pixels)
    real = rows_for(model)["attention_mask"].bool()
    # Two orders of the same float32 sums through ten layers; states are about 1 in size.
    torch.testing.assert_close(eager[real], before[real], rtol=0, atol=1e-4)


def test_each_part_gets_its_own_kernel_back(model, pixels: torch.Tensor) -> None:
    model.vision_model.set_attn_implementation("eager")
    kernels = attention_kernels(model)
    assert set(kernels.values()) == {"sdpa", "eager"}
    attend(model, pixels, rows_for(model))
    assert attention_kernels(model) == kernels


def test_a_pass_that_fails_leaves_the_model_as_it_was(model, pixels: torch.Tensor) -> None:
    kernels, rows = attention_kernels(model), rows_for(model)
    rows["input_ids"] = rows["input_ids"][:, 1:]  # an image token is missing
    with pytest.raises(QvftError, match="11"):
        attend(model, pixels, rows)
    assert attention_kernels(model) == kernels
    assert not any(module._forward_hooks for module in model.modules())


def test_a_model_without_a_qformer_is_refused(pixels: torch.Tensor) -> None:
    other = SimpleNamespace(config=SimpleNamespace(model_type="blip"))
    with pytest.raises(ModelError, match="blip-2, instructblip, qvision"):
        attend(other, pixels, {})


def test_a_quantised_decoder_is_read_and_stays_as_it_is(
    tiny_folder: Path, pixels: torch.Tensor
) -> None:
    base = find_checkpoint(str(tiny_folder))
    model = load_model(base, dtype=torch.float32, quantize="nf4")
    stored = model.language_model.get_decoder().layers[0].self_attn.q_proj.weight
    assert stored.dtype == torch.uint8
    before = hidden_states(model, pixels)
    found = attend(model, pixels, rows_for(model))
    assert found.text.shape == (3, B, LENGTH, LENGTH)
    assert torch.equal(hidden_states(model, pixels), before)
    assert set(attention_kernels(model).values()) == {"sdpa"}
