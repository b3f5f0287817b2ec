"""The forward pass and its stages."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from qvft.models.forward_stages import read_images
from qvft.models.qvision.configuration import VISION_TYPES
from qvft.models.qvision.modeling import CACHE
from qvft.models.qvision.qformer import QVisionAttention
from tests.models.qvision_models import DECODER_TYPES, PAIRS

# Kernels sum in another order for another batch or another implementation: a few hundred terms of
# size 1 with float32's 6e-8 each. GPT-Neo computes attention weights in float32 whatever its type.
ROUNDING = 1e-5


def torch_attention(ours: QVisionAttention, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """The same weights in torch's own module: the reference."""
    width = query.shape[-1]
    theirs = nn.MultiheadAttention(width, ours.heads, batch_first=True, dtype=query.dtype)
    theirs.load_state_dict(ours.state_dict())
    return theirs(query, keys, values)[0]


def shaken(module: nn.Module) -> None:
    """Makes biases and norms matter: fresh ones are zeros and ones."""
    generator = torch.Generator().manual_seed(5)
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize(("vision", "text"), PAIRS)
def test_a_fresh_model_sees_its_image(make_model, pixels, ids, vision, text) -> None:
    model = make_model(vision, text).double()
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    with torch.no_grad():
        first = model(input_ids=ids, pixel_values=pixels.double(), labels=ids)
        second = model(input_ids=ids, pixel_values=pixels.double().flip(0), labels=ids)
    assert first.logits.shape == (3, 9, 61)
    assert first.logits.isfinite().all()
    # In float64 rounding is 1e-15, with GPT-Neo's float32 attention 1e-7.
    assert (first.logits - second.logits).abs().max() > 1e-3
    assert (first.loss - second.loss).abs() > 1e-5


def test_query_tokens_are_drawn(make_model) -> None:
    qformer = make_model().qformer
    tokens = torch.cat([qformer.img_context, qformer.query_tokens], dim=1)[0]
    assert torch.pdist(tokens).min() > 0.1


def test_the_qformer_is_the_described_one(make_model) -> None:
    """Written out with torch's attention: what is normalised, shared and added, and in which
    order. `query_proj` is nowhere."""
    qformer = make_model().qformer.double()
    shaken(qformer)
    features = torch.randn(2, 16, 32, dtype=torch.float64)
    keys, values = qformer.key_proj(features), qformer.value_proj(features)
    states = torch.cat([qformer.img_context, qformer.query_tokens], dim=1).expand(2, -1, -1)
    for block in (0, 1):
        norms = qformer.layer_norms[4 * block : 4 * block + 4]
        assert {norm.eps for norm in norms} == {1e-6}
        own = norms[0](states)
        states = states + torch_attention(qformer.self_attention_layers[block], own, own, own)
        states = states + qformer.ffn_layers[2 * block](norms[1](states))
        look = qformer.cross_attention_layers[block]
        states = states + torch_attention(look, norms[2](states), keys, values)
        states = states + qformer.ffn_layers[2 * block + 1](norms[3](states))
    # float64: sums of some hundred terms at 1e-16 each.
    assert torch.allclose(qformer(features)[0], states, atol=1e-12)


def test_the_text_reads_as_described(make_model) -> None:
    qformer = make_model().qformer.double()
    shaken(qformer)
    hidden, states = torch.randn(2, 5, 32).double(), torch.randn(2, 7, 32).double()
    norm, attend = qformer.decoder_cross_attn_norm, qformer.decoder_cross_attn
    read = hidden + qformer.cross_scale * torch_attention(attend, norm(hidden), states, states)
    expected = read + qformer.decoder_cross_attn_ffn(qformer.decoder_cross_attn_norm2(read))
    found, _ = qformer.read(hidden, attend.memory(states, states))
    assert torch.allclose(found, expected, atol=1e-12)  # float64, as above


def test_dropout_is_where_it_was_published(make_model, pixels, ids) -> None:
    """On attention weights, twice in each feed-forward, on token embeddings and before the head."""
    model = make_model(qformer_dropout=0.1)
    rates = [m.p for m in model.qformer.modules() if isinstance(m, nn.Dropout)]
    rates += [m.dropout for m in model.qformer.modules() if isinstance(m, QVisionAttention)]
    # Four feed-forwards of blocks and one that reads; four attentions and one that reads.
    assert rates == [0.1] * (2 * 5 + 2 + 5)
    kept = model(input_ids=ids, pixel_values=pixels).logits
    for part in (model.qformer.token_dropout, model.qformer.output_dropout):
        part.train()
        assert not torch.equal(model(input_ids=ids, pixel_values=pixels).logits, kept)
        part.eval()
    for asked in (False, True):
        model.qformer.decoder_cross_attn.train()
        found = model(input_ids=ids, pixel_values=pixels, output_attentions=asked).logits
        assert not torch.equal(found, kept)


@pytest.mark.parametrize("vision", VISION_TYPES)
def test_the_class_token_is_left_out(make_model, pixels, vision) -> None:
    encoder = make_model(vision).vision_model
    tower = getattr(encoder.tower, "vision_model", encoder.tower)
    features = tower(pixel_values=pixels).last_hidden_state
    first = {"clip": 1, "sigl": 0}.get(vision[:4], 4 if "registers" in vision else 1)
    assert features.shape[1] == first + 16
    assert torch.equal(encoder(pixels), encoder.projection(features[:, first:]))


@pytest.mark.parametrize("text", DECODER_TYPES)
def test_the_stages_are_the_forward_pass(make_model, pixels, ids, text) -> None:
    model = make_model(text=text)
    whole = model(input_ids=ids, pixel_values=pixels).logits
    states = model.encode_images(pixels)
    assert states.shape == (3, 7, model.config.qformer_hidden_size)
    memory = model.image_memory(states)
    embeds = model.embed(ids)
    hidden = model.decode(embeds, torch.ones_like(ids), use_cache=False).last_hidden_state
    # The same operations on the same shapes; masks of ones may take another kernel than none.
    found = model.head(model.read(hidden, memory))
    assert torch.allclose(found, whole, atol=ROUNDING)
    assert torch.equal(model(input_ids=ids, visual_tokens=states).logits, whole)
    assert torch.equal(model(input_ids=ids, image_memory=memory).logits, whole)
    assert torch.equal(model(inputs_embeds=embeds, visual_tokens=states).logits, whole)


def test_positions_of_rows_read_their_image_by_index(make_model, pixels, ids) -> None:
    model = make_model()
    images, index = model.encode_images(pixels[:2]), torch.tensor([1, 0, 1])
    hidden = model.decode(model.embed(ids), None).last_hidden_state
    whole = model.read(hidden, model.image_memory(images[index]))
    where = torch.zeros(3, 9, dtype=torch.bool)
    where[0, 2:5] = where[2, 0] = where[2, 8] = True  # the second row asks for nothing
    row = where.nonzero()[:, 0]
    found = read_images(model, hidden[where], row=row, images=images, image_index=index)
    assert torch.allclose(found, whole[where], atol=ROUNDING)
    nothing = read_images(
        model, hidden[:, :0].flatten(0, 1), row=row[:0], images=images, image_index=index
    )
    assert nothing.shape == (0, 32)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("text", DECODER_TYPES)
def test_padding_moves_no_logit(make_model, pixels, ids, text, side) -> None:
    model = make_model(text=text)
    alone = model(input_ids=ids[:1], pixel_values=pixels[:1]).logits
    padding = torch.zeros(1, 5, dtype=torch.long)
    ones = torch.ones(1, 9, dtype=torch.long)
    pair = [(padding, ids[:1]), (padding, ones)]
    if side == "right":
        pair = [part[::-1] for part in pair]
    padded, mask = (torch.cat(part, dim=1) for part in pair)
    logits = model(input_ids=padded, attention_mask=mask, pixel_values=pixels[:1]).logits
    assert torch.allclose(logits[mask.bool()], alone[0], atol=ROUNDING)


@pytest.mark.parametrize("text", DECODER_TYPES)
def test_no_token_sees_a_later_one(make_model, pixels, ids, text) -> None:
    model = make_model(text=text)
    changed = ids.clone()
    changed[:, 6:] = 3
    before = model(input_ids=ids, pixel_values=pixels).logits
    after = model(input_ids=changed, pixel_values=pixels).logits
    assert torch.equal(before[:, :6], after[:, :6])
    assert not torch.equal(before[:, 6:], after[:, 6:])


def test_the_loss_is_the_cross_entropy_of_the_next_token(make_model, pixels, ids) -> None:
    model = make_model()
    labels = ids.clone()
    labels[:, :4] = -100
    output = model(input_ids=ids, pixel_values=pixels, labels=labels)
    expected = cross_entropy(output.logits[:, 3:-1].flatten(0, 1), ids[:, 4:].flatten())
    assert torch.allclose(output.loss, expected, atol=ROUNDING)
    # 3 rows of 5 supervised tokens: the mean over 30 is half of it.
    halved = model(input_ids=ids, pixel_values=pixels, labels=labels, num_items_in_batch=30)
    assert torch.allclose(halved.loss, expected / 2, atol=ROUNDING)


def test_the_last_logits_alone_are_the_last_of_all(make_model, pixels, ids) -> None:
    model = make_model()
    whole = model(input_ids=ids, pixel_values=pixels).logits
    last = model(input_ids=ids, pixel_values=pixels, logits_to_keep=1).logits
    assert torch.allclose(last, whole[:, -1:], atol=ROUNDING)


@pytest.mark.parametrize("text", DECODER_TYPES)
def test_attentions_are_given_where_asked_for(make_model, pixels, ids, text) -> None:
    model = make_model(text=text)
    plain = model(input_ids=ids, pixel_values=pixels)
    assert plain.text_attention is None
    assert plain.query_attentions is None
    shown = model(input_ids=ids, pixel_values=pixels, output_attentions=True)
    assert torch.allclose(shown.logits, plain.logits, atol=ROUNDING)
    assert shown.text_attention.shape == (3, 4, 9, 7)
    assert [look.shape for look in shown.query_attentions] == [(3, 4, 7, 16)] * 2
    for weights in (shown.text_attention, *shown.query_attentions):
        assert torch.allclose(weights.sum(dim=-1), torch.ones(()), atol=ROUNDING)
    if text != "gemma2":  # which has none
        model.set_attn_implementation("sdpa")
    assert torch.allclose(
        model(input_ids=ids, pixel_values=pixels).logits, plain.logits, atol=ROUNDING
    )
    model.set_attn_implementation("eager")
    eager = model(input_ids=ids, pixel_values=pixels, output_attentions=True)
    assert torch.allclose(eager.logits, plain.logits, atol=ROUNDING)
    assert [own.shape for own in eager.attentions] == [(3, 4, 9, 9)] * 2


def test_text_without_an_image_is_refused(make_model, pixels, ids) -> None:
    model = make_model()
    with pytest.raises(ValueError, match="the images in one form"):
        model(input_ids=ids)
    with pytest.raises(ValueError, match="the images in one form"):
        model(input_ids=ids, pixel_values=pixels, visual_tokens=model.encode_images(pixels))
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        model(pixel_values=pixels)


def test_what_a_forward_does_not_know_is_refused_by_name(make_model, pixels, ids) -> None:
    """Swallowed, a renamed argument would change what is computed in silence."""
    model = make_model()
    with pytest.raises(TypeError, match="past_keys"):
        model(input_ids=ids, pixel_values=pixels, past_keys=None)
    with pytest.raises(TypeError, match="query_states"):
        model(input_ids=ids, query_states=model.encode_images(pixels))
    with pytest.raises(TypeError, match="cache_state"):
        model.decode(model.embed(ids), None, cache_state=None)
    with pytest.raises(ValueError, match="query_states"):  # transformers' own check
        model.generate(ids, pixel_values=pixels, query_states=pixels)


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_a_cache_goes_by_either_name(make_model, pixels, ids, name) -> None:
    model = make_model()
    whole = model(input_ids=ids, pixel_values=pixels).logits
    first = model(input_ids=ids[:, :5], pixel_values=pixels, use_cache=True)
    mask = torch.ones_like(ids)
    rest = model(
        input_ids=ids[:, 5:], attention_mask=mask, pixel_values=pixels, **{name: first[CACHE]}
    )
    assert torch.allclose(rest.logits, whole[:, 5:], atol=ROUNDING)
    with pytest.raises(ValueError, match="two names of one thing"):
        both = {"cache": first[CACHE], "past_key_values": first[CACHE]}
        model(input_ids=ids[:, 5:], pixel_values=pixels, **both)


def test_a_tuple_is_given_where_no_dict_is_wanted(make_model, pixels, ids) -> None:
    model = make_model()
    given = {"input_ids": ids, "pixel_values": pixels, "labels": ids, "use_cache": False}
    loss, logits = model(**given, return_dict=False)[:2]
    assert torch.equal(logits, model(**given).logits) and torch.equal(loss, model(**given).loss)


def test_one_image_is_not_spread_over_many_rows(make_model, pixels, ids) -> None:
    with pytest.raises(ValueError, match="3 rows of text with 1 images"):
        make_model()(input_ids=ids, pixel_values=pixels[:1])


def test_a_frozen_tower_stays_out_of_autograd(make_model, pixels) -> None:
    encoder = make_model("clip").vision_model
    seen = []
    encoder.tower.vision_model.register_forward_hook(
        lambda *call: seen.append(call[-1].last_hidden_state.requires_grad)
    )
    encoder(pixels)
    encoder.tower.requires_grad_(False)
    encoder(pixels).sum().backward()
    assert seen == [True, False]
    assert encoder.projection.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("text", DECODER_TYPES)
def test_every_weight_in_use_gets_a_gradient_with_and_without_checkpointing(
    make_model, pixels, ids, text
) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = make_model(text=text).train()
        model.vision_model.tower.requires_grad_(False)
        if checkpointing:
            # Renamed in transformers 5.23; the old name is deprecated there.
            name = "activation_checkpointing_enable"
            enable = getattr(model, name, None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": False})
            assert model.get_decoder().gradient_checkpointing
        model(input_ids=ids, pixel_values=pixels, labels=ids, use_cache=False).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    plain, checkpointed = gradients
    # `query_proj` is never used and has a gradient of zero, so that processes can exchange it. A
    # key's bias moves all scores of a softmax alike, so that its gradient is zero by nature.
    assert not plain["qformer.query_proj.weight"].any()
    still = [n for n, g in plain.items() if g is None or not g.abs().sum() > 0]
    by_nature = ("k_proj.bias", "query_proj.weight", "query_proj.bias")
    assert [n for n in still if not n.endswith(by_nature)] == []
    for name, gradient in plain.items():
        assert torch.allclose(gradient, checkpointed[name], atol=ROUNDING), name


def test_resized_embeddings_stay_tied(make_model, pixels, ids) -> None:
    model = make_model()
    before = model(input_ids=ids, pixel_values=pixels).logits
    model.resize_token_embeddings(64)
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert model.config.text_config.vocab_size == model.language_model.config.vocab_size == 64
    after = model(input_ids=ids, pixel_values=pixels, labels=ids + 2).logits
    assert torch.allclose(after[..., :61], before, atol=ROUNDING)


def test_a_decoder_in_bfloat16_takes_a_float32_qformer(make_model, pixels, ids) -> None:
    model = make_model()
    whole = model(input_ids=ids, pixel_values=pixels, labels=ids).loss
    model.vision_model.bfloat16()
    model.language_model.bfloat16()
    assert model.encode_images(pixels).dtype == torch.float32
    loss = model(input_ids=ids, pixel_values=pixels, labels=ids).loss
    # bfloat16 keeps 8 bits: 0.4 % a rounding, of a loss near log 61 = 4.1.
    assert torch.allclose(loss.float(), whole, rtol=0.02)
