"""Attention weights of a QVision pass, and that the model afterwards is as it was."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from qvft.models.attention import attend
from qvft.models.attention_weights import attention_kernels
from qvft.models.qvision.configuration import DECODER_TYPES, VISION_TYPES
from qvft.models.qvision.qformer import QVisionAttention, grid_positions

B, L, Q, P = 3, 9, 7, 16  # six query tokens and the context token
ROUNDING = 1e-5  # of float32 sums over at most 16 weights, whose error is below 16 * 2^-24 = 1e-6


def rows_of(ids: Tensor) -> dict[str, Tensor]:
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def weights_by_torch(ours: QVisionAttention, hidden: Tensor, keys: Tensor) -> Tensor:
    """(B, L, S) mean over heads, from torch's own module with the same weights: the reference."""
    width = hidden.shape[-1]
    theirs = nn.MultiheadAttention(width, ours.heads, batch_first=True, dtype=hidden.dtype)
    projections = ours.q_proj, ours.k_proj, ours.v_proj
    theirs.in_proj_weight.data = torch.cat([layer.weight for layer in projections])
    theirs.in_proj_bias.data = torch.cat([layer.bias for layer in projections])
    return theirs(hidden, keys, keys)[1]


@pytest.mark.parametrize("text", DECODER_TYPES)
@pytest.mark.parametrize("vision", VISION_TYPES)
def test_rows_sum_to_one_and_no_class_token_is_among_them(
    make_model, pixels, ids, vision, text
) -> None:
    found = attend(make_model(vision, text), pixels, rows_of(ids))
    assert found.text.shape == (1, B, L, Q) and found.cross.shape == (2, B, Q, P)
    assert (found.grid, found.has_class_token) == ((4, 4), False)
    assert found.is_query.shape == (B, Q) and found.is_query.all()
    assert (found.text_layers, found.cross_layers) == ((0,), (0, 1))
    for weights in (found.text, found.cross):
        assert weights.min() >= 0
        sums = weights.sum(dim=-1)
        torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=ROUNDING)


def test_weights_are_those_of_the_described_qformer(make_model, pixels, ids) -> None:
    """Written out from the modules' weights with torch's attention, in float64."""
    model = make_model().double()
    qformer, pixels = model.qformer, pixels.double()
    found = attend(model, pixels, rows_of(ids))
    with torch.no_grad():
        placed = model.vision_model(pixels) + grid_positions(4, 4, 32).double()
        keys, values = qformer.key_projection(placed), qformer.value_projection(placed)
        learned = torch.cat([qformer.query_tokens, qformer.context_token], dim=1)
        states = qformer.query_projection(learned).expand(B, -1, -1)
        for number, block in enumerate(qformer.blocks):
            own = block.self_norm(states)
            states = states + block.self_attention(own, block.self_attention.memory(own, own))[0]
            states = states + block.self_ffn(block.self_ffn_norm(states))
            looking = block.cross_norm(states)
            expected = weights_by_torch(block.cross_attention, looking, keys)
            # The weights are handed out in float32, which is good to 6e-8.
            torch.testing.assert_close(found.cross[number], expected.float(), rtol=0, atol=1e-7)
            memory = block.cross_attention.memory(keys, values)
            states = states + block.cross_attention(looking, memory)[0]
            states = states + block.cross_ffn(block.cross_ffn_norm(states))
        tokens = qformer.text_reader.norm(model.get_input_embeddings()(ids))
        expected = weights_by_torch(qformer.text_reader.attention, tokens, states)
    torch.testing.assert_close(found.text[0], expected.float(), rtol=0, atol=1e-7)
    torch.testing.assert_close(found.queries, states.float(), rtol=0, atol=1e-6)  # about 3 in size


@pytest.mark.parametrize("text", DECODER_TYPES)
def test_weights_are_those_that_the_model_hands_out(make_model, pixels, ids, text) -> None:
    model = make_model(text=text)
    found = attend(model, pixels, rows_of(ids))
    with torch.no_grad():
        given = model(input_ids=ids, pixel_values=pixels, output_attentions=True)
    # The same operations on the same shapes.
    assert torch.equal(found.text[0], given.text_attention.mean(dim=1))
    for ours, theirs in zip(found.cross, given.query_attentions, strict=True):
        assert torch.equal(ours, theirs.mean(dim=1))


def test_without_preferences_attention_is_even(make_model, pixels, ids) -> None:
    model = make_model()
    readers = [block.cross_attention for block in model.qformer.blocks]
    for module in [*readers, model.qformer.text_reader.attention]:
        nn.init.zeros_(module.q_proj.weight)
        nn.init.zeros_(module.q_proj.bias)
    found = attend(model, pixels, rows_of(ids))
    torch.testing.assert_close(
        found.text, torch.full_like(found.text, 1 / Q), rtol=0, atol=ROUNDING
    )
    torch.testing.assert_close(
        found.cross, torch.full_like(found.cross, 1 / P), rtol=0, atol=ROUNDING
    )


def test_a_token_reads_the_same_wherever_it_stands(make_model, pixels, ids) -> None:
    """A longer prompt moves a token's row, not the columns."""
    model = make_model()
    short = attend(model, pixels, rows_of(ids))
    longer = attend(model, pixels, rows_of(torch.cat([ids[:, :4].flip(1), ids], dim=1)))
    torch.testing.assert_close(longer.text[:, :, 4:], short.text, rtol=0, atol=ROUNDING)
    assert (short.text[0, 0, 1:] - short.text[0, 0, 0]).abs().max() > 1e-3  # tokens differ


@pytest.mark.parametrize("text", DECODER_TYPES)
def test_outputs_and_kernels_are_those_of_before(make_model, pixels, ids, text) -> None:
    model = make_model(text=text)
    model.vision_model.tower.set_attn_implementation("eager")
    kernels = attention_kernels(model)
    with torch.no_grad():
        before = model(input_ids=ids, pixel_values=pixels)
        attend(model, pixels, rows_of(ids))
        after = model(input_ids=ids, pixel_values=pixels)
    assert attention_kernels(model) == kernels
    assert torch.equal(after.logits, before.logits)
    assert after.text_attention is None
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_pass_that_fails_leaves_the_model_as_it_was(make_model, pixels, ids) -> None:
    model = make_model()
    kernels = attention_kernels(model)
    with pytest.raises(ValueError, match="3 rows of text with 2 images"):
        attend(model, pixels[:2], rows_of(ids))
    assert attention_kernels(model) == kernels
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
