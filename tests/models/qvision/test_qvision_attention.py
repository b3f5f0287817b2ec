"""Attention weights of a QVision pass, and that the model afterwards is as it was."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from qvft.models.attention_capture import attention_kernels
from qvft.models.attention_maps import attend
from qvft.models.qvision.qformer import QVisionAttention
from tests.models.qvision_models import DECODER_TYPES, PAIRS

B, L, Q, P = 3, 9, 7, 16  # six query tokens and the context token
ROUNDING = 1e-5  # of float32 sums over at most 16 weights, whose error is below 16 * 2^-24 = 1e-6


def rows_of(ids: Tensor) -> dict[str, Tensor]:
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def weights_by_torch(ours: QVisionAttention, hidden: Tensor, keys: Tensor) -> Tensor:
    """(B, L, S) mean over heads, from torch's own module with the same weights: the reference."""
    width = hidden.shape[-1]
    theirs = nn.MultiheadAttention(width, ours.heads, batch_first=True, dtype=hidden.dtype)
    theirs.load_state_dict(ours.state_dict())
    return theirs(hidden, keys, keys)[1]


def hooks_of(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize(("vision", "text"), PAIRS)
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


def test_weights_are_those_of_torchs_attention(make_model, pixels, ids) -> None:
    """Written out from the modules' weights, in float64."""
    model = make_model().double()
    qformer, pixels = model.qformer, pixels.double()
    found = attend(model, pixels, rows_of(ids))
    with torch.no_grad():
        features = model.vision_model(pixels)
        keys, values = qformer.key_proj(features), qformer.value_proj(features)
        states = torch.cat([qformer.img_context, qformer.query_tokens], dim=1).expand(B, -1, -1)
        for block in (0, 1):
            norms = qformer.layer_norms[4 * block : 4 * block + 4]
            own, attention = norms[0](states), qformer.self_attention_layers[block]
            states = states + attention(own, attention.memory(own, own))[0]
            states = states + qformer.ffn_layers[2 * block](norms[1](states))
            look, looking = qformer.cross_attention_layers[block], norms[2](states)
            expected = weights_by_torch(look, looking, keys)
            # The weights are handed out in float32, which is good to 6e-8.
            torch.testing.assert_close(found.cross[block], expected.float(), rtol=0, atol=1e-7)
            states = states + look(looking, look.memory(keys, values))[0]
            states = states + qformer.ffn_layers[2 * block + 1](norms[3](states))
        hidden = model.decode(model.embed(ids), torch.ones_like(ids)).last_hidden_state
        hidden = qformer.decoder_cross_attn_norm(hidden)
        expected = weights_by_torch(qformer.decoder_cross_attn, hidden, states)
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
    readers = [*model.qformer.cross_attention_layers, model.qformer.decoder_cross_attn]
    for module in readers:
        nn.init.zeros_(module.in_proj_weight[:32])
        nn.init.zeros_(module.in_proj_bias[:32])
    found = attend(model, pixels, rows_of(ids))
    torch.testing.assert_close(
        found.text, torch.full_like(found.text, 1 / Q), rtol=0, atol=ROUNDING
    )
    torch.testing.assert_close(
        found.cross, torch.full_like(found.cross, 1 / P), rtol=0, atol=ROUNDING
    )


@pytest.mark.parametrize("text", DECODER_TYPES)
def test_where_a_word_looks_depends_on_the_words_before_and_not_after(
    make_model, pixels, ids, text
) -> None:
    model = make_model(text=text)
    before = attend(model, pixels, rows_of(ids)).text
    changed = ids.clone()
    changed[:, 4] = (changed[:, 4] + 1) % 50 + 5
    after = attend(model, pixels, rows_of(changed)).text
    assert torch.equal(after[:, :, :4], before[:, :, :4])
    moved = (after - before).abs().amax(dim=-1)[0]
    assert (moved[:, 5] > 1e-4).all()  # the next word is the same one, and looks elsewhere


@pytest.mark.parametrize("text", DECODER_TYPES)
def test_outputs_and_kernels_are_those_of_before(make_model, pixels, ids, text) -> None:
    model = make_model(text=text)
    model.vision_model.tower.set_attn_implementation("eager")
    kernels = attention_kernels(model)
    with torch.no_grad():
        before = model(input_ids=ids, pixel_values=pixels)
        # transformers leaves hooks of its own in a decoder that was asked for its attention.
        model(input_ids=ids, pixel_values=pixels, output_attentions=True)
        hooks = hooks_of(model)
        attend(model, pixels, rows_of(ids))
        after = model(input_ids=ids, pixel_values=pixels)
    assert attention_kernels(model) == kernels
    assert torch.equal(after.logits, before.logits)
    assert after.text_attention is None
    assert hooks_of(model) == hooks


def test_a_pass_that_fails_leaves_the_model_as_it_was(make_model, pixels, ids) -> None:
    model = make_model()
    kernels = attention_kernels(model)
    with pytest.raises(ValueError, match="3 rows of text with 2 images"):
        attend(model, pixels[:2], rows_of(ids))
    assert attention_kernels(model) == kernels
    assert hooks_of(model) == 0
