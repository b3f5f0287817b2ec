"""Generation: cache, padding, beams, sampling, images in both forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig

from qvft.models.qvision.modeling import QVisionForConditionalGeneration
from tests.models.qvision_models import DECODER_TYPES

# Texts go on to a fixed length, past GPT-Neo's window of 4.
NEW_TOKENS = 10
FIXED = {"min_new_tokens": NEW_TOKENS, "max_new_tokens": NEW_TOKENS}
GREEDY = {"do_sample": False, **FIXED}


@pytest.fixture(params=DECODER_TYPES)
def model(request, make_model) -> QVisionForConditionalGeneration:
    """In float64, where rows' most likely tokens do not hang on the order of a sum; Gemma 2 in
    float32, to which its attention casts a mask that has float64's lowest number.
    """
    model = make_model(text=request.param)
    return model if request.param == "gemma2" else model.double()


@pytest.fixture
def pixels(pixels: Tensor) -> Tensor:
    return pixels.double()


@torch.no_grad()
def greedy_by_hand(model: QVisionForConditionalGeneration, ids: Tensor, pixels: Tensor) -> Tensor:
    """The most likely token, again and again, each from a forward pass over everything."""
    for _ in range(NEW_TOKENS):
        scores = model(input_ids=ids, pixel_values=pixels).logits[:, -1]
        scores[:, model.config.text_config.eos_token_id] = -torch.inf
        ids = torch.cat([ids, scores.argmax(dim=-1, keepdim=True)], dim=1)
    return ids


def left_padded(rows: list[Tensor], pad: int = 0) -> dict[str, Tensor]:
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, width - len(row) :] = row
        mask[number, width - len(row) :] = 1
    return {"input_ids": ids, "attention_mask": mask}


def test_greedy_with_and_without_a_cache_is_greedy(model, pixels, ids) -> None:
    expected = greedy_by_hand(model, ids, pixels)
    mask = torch.ones_like(ids)
    for use_cache in (True, False):
        found = model.generate(
            ids, attention_mask=mask, pixel_values=pixels, use_cache=use_cache, **GREEDY
        )
        assert torch.equal(found, expected)


@pytest.mark.parametrize("beams", [1, 3])
def test_padded_rows_say_the_same_with_and_without_a_cache(model, pixels, ids, beams) -> None:
    rows = left_padded([ids[0, :2], ids[1, :9], ids[2, :5]])
    options: dict[str, Any] = {**GREEDY, "num_beams": beams, "num_return_sequences": beams}
    cached, whole = (
        model.generate(**rows, pixel_values=pixels, use_cache=use_cache, **options)
        for use_cache in (True, False)
    )
    assert cached.shape == (3 * beams, 9 + NEW_TOKENS)
    assert torch.equal(cached, whole)


def test_with_a_cache_a_step_passes_one_position_through_all(model, pixels, ids) -> None:
    seen: list[tuple[int, int]] = []

    def watch(module: Any, given: Any, options: Any, output: Any) -> None:
        seen.append((options["inputs_embeds"].shape[1], output.last_hidden_state.shape[1]))

    read: list[int] = []
    model.get_decoder().register_forward_hook(watch, with_kwargs=True)
    model.qformer.decoder_cross_attn.register_forward_hook(
        lambda module, given, output: read.append(output[0].shape[1])
    )
    model.generate(ids, attention_mask=torch.ones_like(ids), pixel_values=pixels, **GREEDY)
    assert seen == [(9, 9)] + [(1, 1)] * (NEW_TOKENS - 1)
    assert read == [1] * NEW_TOKENS


def test_each_row_is_scored_by_its_own_image(model, pixels, ids) -> None:
    same = ids[:1].repeat(3, 1)
    found = model.generate(
        same,
        attention_mask=torch.ones_like(same),
        pixel_values=pixels[[0, 1, 0]],
        return_dict_in_generate=True,
        output_logits=True,
        **GREEDY,
    )
    first = found.logits[0]
    # Rounding is 1e-15, with GPT-Neo's float32 attention 1e-7, in float32 some times that.
    torch.testing.assert_close(first[0], first[2], rtol=0, atol=1e-6)
    assert (first[0] - first[1]).abs().max() > 1e-3


@pytest.mark.parametrize("beams", [1, 3])
def test_a_left_padded_batch_says_what_its_rows_say_alone(model, pixels, ids, beams) -> None:
    rows = [ids[0, :2], ids[1, :9], ids[2, :5]]
    options: dict[str, Any] = {**GREEDY, "num_beams": beams}
    together = model.generate(**left_padded(rows), pixel_values=pixels, **options)
    for number, row in enumerate(rows):
        alone = model.generate(
            row[None],
            attention_mask=torch.ones_like(row)[None],
            pixel_values=pixels[number : number + 1],
            **options,
        )
        assert torch.equal(together[number, -NEW_TOKENS:], alone[0, -NEW_TOKENS:])


def test_visual_tokens_stand_in_for_pixels(model, pixels, ids) -> None:
    options = {"attention_mask": torch.ones_like(ids), "num_beams": 2, **GREEDY}
    states = model.encode_images(pixels)
    by_pixels = model.generate(ids, pixel_values=pixels, **options)
    assert torch.equal(by_pixels, model.generate(ids, visual_tokens=states, **options))


def test_several_sequences_stand_by_their_own_image(model, pixels, ids) -> None:
    options = {"num_beams": 4, "num_return_sequences": 3, **GREEDY}
    mask = torch.ones_like(ids)
    found = model.generate(ids, attention_mask=mask, pixel_values=pixels, **options)
    assert found.shape == (9, 9 + NEW_TOKENS)
    for number in range(3):
        own = slice(number, number + 1)
        alone = model.generate(
            ids[own], attention_mask=mask[own], pixel_values=pixels[own], **options
        )
        assert torch.equal(found[3 * number : 3 * number + 3], alone)
        assert len({tuple(row) for row in alone.tolist()}) == 3


def test_sampling_draws_several_texts(model, pixels, ids) -> None:
    options = {"do_sample": True, "temperature": 0.7, "top_k": 40, "top_p": 0.9, **FIXED}
    draws = []
    for _ in range(2):
        torch.manual_seed(0)
        draws.append(
            model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                pixel_values=pixels,
                repetition_penalty=1.5,
                num_return_sequences=4,
                **options,
            )
        )
    assert torch.equal(*draws)
    assert draws[0].shape == (12, 9 + NEW_TOKENS)
    assert len({tuple(row) for row in draws[0][:4].tolist()}) > 1


def test_an_image_is_encoded_once_however_long_the_text(model, pixels, ids, monkeypatch) -> None:
    calls = []
    model.vision_model.register_forward_hook(lambda *_: calls.append("vision"))
    memory = model.image_memory
    monkeypatch.setattr(
        model, "image_memory", lambda states: calls.append("keys") or memory(states)
    )
    mask = torch.ones_like(ids)
    model.generate(ids, attention_mask=mask, pixel_values=pixels, num_beams=3, **GREEDY)
    assert calls == ["vision", "keys"]


def test_without_a_prompt_a_text_begins_with_the_bos_token(model, pixels) -> None:
    found = model.generate(pixel_values=pixels, **GREEDY)
    assert found.shape == (3, 1 + NEW_TOKENS)
    assert found[:, 0].tolist() == [1, 1, 1]
    assert torch.equal(found, greedy_by_hand(model, found[:, :1], pixels))


def test_a_text_stops_at_the_end_token_and_is_padded(model, pixels, ids) -> None:
    mask = torch.ones_like(ids)
    free = model.generate(ids, attention_mask=mask, pixel_values=pixels, **GREEDY)
    stop = int(free[0, ids.shape[1] + 2])
    settings = GenerationConfig(eos_token_id=stop, pad_token_id=0, max_new_tokens=NEW_TOKENS)
    stopped = model.generate(ids, settings, attention_mask=mask, pixel_values=pixels)
    row = stopped[0, ids.shape[1] :].tolist()
    assert stop in row
    assert set(row[row.index(stop) + 1 :]) <= {0}


def test_prompt_embeddings_go_on_as_their_tokens_do(model, pixels, ids) -> None:
    mask = torch.ones_like(ids)
    states = model.encode_images(pixels)
    by_ids = model.generate(ids, attention_mask=mask, visual_tokens=states, **GREEDY)
    by_embeds = model.generate(
        inputs_embeds=model.embed(ids), attention_mask=mask, visual_tokens=states, **GREEDY
    )
    assert torch.equal(by_embeds[:, -NEW_TOKENS:], by_ids[:, -NEW_TOKENS:])


def test_generation_without_an_image_is_refused(model, pixels, ids) -> None:
    with pytest.raises(ValueError, match="either pixel_values or visual_tokens"):
        model.generate(ids, **GREEDY)
    with pytest.raises(ValueError, match="either pixel_values or visual_tokens"):
        model.generate(ids, pixel_values=pixels, visual_tokens=pixels, **GREEDY)


def test_a_trained_model_says_to_each_image_its_own_text(make_model, pixels, ids) -> None:
    """The tower stays frozen and all texts begin alike: the image alone tells them apart."""
    model = make_model(seed=3).train()
    model.vision_model.requires_grad_(False)
    texts = torch.cat([torch.ones(3, 1, dtype=torch.long), ids[:, :6]], dim=1)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=3e-3)
    for _ in range(80):
        loss = model(input_ids=texts, pixel_values=pixels, labels=texts, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = model.eval().generate(
        texts[:, :1],
        attention_mask=torch.ones(3, 1, dtype=torch.long),
        pixel_values=pixels.flip(0),
        do_sample=False,
        max_new_tokens=6,
    )
    assert torch.equal(found, texts.flip(0))
