"""The embedded default model: geometry, size, tokenizer in OPT's format, image that matters."""

from pathlib import Path

import pytest
import tiny_models
import torch
from transformers import AutoProcessor, Blip2ForConditionalGeneration, Blip2Processor

from tools.tiny_blip2.drawn import draw, sample_scene, vocabulary_texts
from tools.tiny_blip2.geometry import (
    EOS_ID,
    IMAGE_SIZE_PX,
    INITIALIZER_RANGE,
    PAD_ID,
    QUERY_TOKENS,
    VOCABULARY_SIZE,
    init_tiny,
    tiny_config,
    tiny_tokenizer,
)

PACKAGE_BYTES_MAX = 11_500_000
TEXTS = (
    "Question: Is there evidence of pneumonia? Answer: yes\n",
    "naïve ☃ 数 a\tb\n\n",
    " 3.5 cm",
)


@pytest.fixture(scope="module")
def processor() -> Blip2Processor:
    return tiny_models.processor()


@pytest.fixture(scope="module")
def model() -> Blip2ForConditionalGeneration:
    return init_tiny(0).eval()


def test_model_and_processor_fit_the_package(
    model: Blip2ForConditionalGeneration, processor: Blip2Processor, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < PACKAGE_BYTES_MAX


def test_no_part_starts_at_zero_width() -> None:
    config = tiny_config()
    assert config.vision_config.initializer_range == INITIALIZER_RANGE
    assert config.qformer_config.initializer_range == INITIALIZER_RANGE
    assert config.text_config.init_std == INITIALIZER_RANGE


def test_equal_seeds_give_equal_weights_and_leave_the_random_state() -> None:
    state = torch.get_rng_state()
    first, second = init_tiny(1).state_dict(), init_tiny(1).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert torch.equal(state, torch.get_rng_state())


def test_query_tokens_differ_from_each_other(model: Blip2ForConditionalGeneration) -> None:
    assert torch.pdist(model.query_tokens[0]).min() > 0.1


def test_a_fresh_model_sees_the_image(
    model: Blip2ForConditionalGeneration, processor: Blip2Processor
) -> None:
    images = [draw(sample_scene(0, index), IMAGE_SIZE_PX) for index in range(2)]
    batch = processor(images=images, text=["Question: what? Answer:"] * 2, return_tensors="pt")
    with torch.no_grad():
        logits = model(**batch).logits
    # Far above rounding (1e-7 at this scale): the two images give two distributions.
    assert (logits[0] - logits[1]).abs().max() > 1e-4


def test_special_tokens_stand_where_opt_has_them(processor: Blip2Processor) -> None:
    tokenizer = processor.tokenizer
    assert tokenizer.convert_tokens_to_ids(["<s>", "<pad>", "</s>", "<unk>"]) == [0, 1, 2, 3]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (EOS_ID, EOS_ID)
    assert tokenizer.pad_token_id == PAD_ID
    assert tokenizer.convert_tokens_to_ids("<image>") == tiny_config().image_token_index
    assert len(tokenizer) == VOCABULARY_SIZE


def test_text_begins_with_the_eos_token_as_in_opt(processor: Blip2Processor) -> None:
    assert processor.tokenizer("a circle")["input_ids"][0] == EOS_ID
    assert processor.tokenizer("a circle")["input_ids"].count(EOS_ID) == 1


def test_newline_is_one_token(processor: Blip2Processor) -> None:
    ids = processor.tokenizer(" yes\n", add_special_tokens=False)["input_ids"]
    assert processor.tokenizer.convert_ids_to_tokens(ids) == ["Ġyes", "Ċ"]


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_is_written_and_read_back(processor: Blip2Processor, text: str) -> None:
    ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert processor.tokenizer.decode(ids) == text


def test_a_saved_processor_loads_with_auto_processor(
    processor: Blip2Processor, tmp_path: Path
) -> None:
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    image = draw(sample_scene(0, 0), 70)
    ours = processor(images=image, text=TEXTS[0], return_tensors="pt")
    theirs = loaded(images=image, text=TEXTS[0], return_tensors="pt")
    assert theirs["pixel_values"].shape == (1, 3, IMAGE_SIZE_PX, IMAGE_SIZE_PX)
    assert (theirs["input_ids"] == tiny_config().image_token_index).sum() == QUERY_TOKENS
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_tokenizer_training_is_deterministic(processor: Blip2Processor) -> None:
    again = tiny_tokenizer(vocabulary_texts())
    assert again.get_vocab() == processor.tokenizer.get_vocab()


def test_too_little_text_for_the_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match="more varied text"):
        tiny_tokenizer(["a red circle"])
