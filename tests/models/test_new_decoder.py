"""Another decoder behind a BLIP-2 checkpoint's ViT and Q-Former: every weight and its tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Blip2ForConditionalGeneration
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from qvft.errors import ModelError
from qvft.models.base_checkpoint import BaseCheckpoint, find_checkpoint
from qvft.models.decoders import BLIP2, DECODERS
from qvft.models.load import load_model, load_processor
from qvft.models.new_decoder import IMAGE_TOKEN
from qvft.models.weight_files import weights_hash


def based_on(tiny_folder: Path, decoder: Path, **options) -> BaseCheckpoint:
    return find_checkpoint(str(tiny_folder), decoder=str(decoder), **options)


def test_every_weight_is_the_one_of_its_checkpoint(
    tiny_folder: Path, language_folder: Path
) -> None:
    model = load_model(based_on(tiny_folder, language_folder), dtype=torch.float32)
    eyes = Blip2ForConditionalGeneration.from_pretrained(tiny_folder).state_dict()
    decoder = AutoModelForCausalLM.from_pretrained(language_folder).state_dict()
    held = model.state_dict()
    from_eyes = {key for key in held if not key.startswith("language_")}
    assert {key for key in eyes if not key.startswith("language_")} == from_eyes
    assert all(torch.equal(held[key], eyes[key]) for key in from_eyes)
    for key, tensor in decoder.items():
        found = held[f"language_model.{key}"]
        assert torch.equal(found[: len(tensor)], tensor), key
        assert found.shape[1:] == tensor.shape[1:]


SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.1,
}
LLAMA = {**SIZES, "intermediate_size": 96, "num_key_value_heads": 2, "head_dim": 16}
FIELDS: dict[str, dict[str, Any]] = {
    "opt": {**SIZES, "ffn_dim": 96, "word_embed_proj_dim": 64},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "gpt_neo": {
        "hidden_size": 64,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
    },
}
CAUSAL = sorted(
    kind
    for kind, decoder in DECODERS.items()
    if BLIP2 in decoder.families and kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
)


@pytest.mark.parametrize("kind", CAUSAL)
def test_every_causal_decoder_of_the_table_keeps_its_function(
    tiny_folder: Path, language_folder: Path, tmp_path: Path, kind: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(language_folder)
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    fields = FIELDS.get(kind, LLAMA) | ends | {"bos_token_id": None}
    rows = len(tokenizer) + 1  # Qwen2's tokenizer adds one
    config = CONFIG_MAPPING[kind](**fields, vocab_size=rows)
    plain = AutoModelForCausalLM.from_config(config).eval()
    folder = tmp_path / kind
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model = load_model(based_on(tiny_folder, folder), dtype=torch.float32)
    ids = torch.arange(3, 15).reshape(2, 6)
    with torch.no_grad():
        expected = plain(input_ids=ids).logits
        found = model.language_model(input_ids=ids).logits
    # float32 sums of 64 products of size 1, by another attention kernel.
    torch.testing.assert_close(found[..., :rows], expected, atol=2e-5, rtol=1e-5)


def test_a_head_that_is_stored_beside_its_tied_embedding_must_equal_it(
    tiny_folder: Path, language_folder: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(language_folder, tmp_path / "copy"))
    weights = load_file(copy / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    load_model(based_on(tiny_folder, copy), dtype=torch.float32)
    weights["lm_head.weight"][0] += 1
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lm_head.* differ.*tie_word_embeddings"):
        load_model(based_on(tiny_folder, copy), dtype=torch.float32)


def test_the_projection_has_the_width_of_the_decoder_and_comes_from_the_seed(
    tiny_folder: Path, language_folder: Path
) -> None:
    first, again, other = (
        load_model(based_on(tiny_folder, language_folder, seed=seed), dtype=torch.float32)
        for seed in (0, 0, 1)
    )
    weight = first.language_projection.weight
    width = first.config.text_config.hidden_size
    assert weight.shape == (width, first.config.qformer_config.hidden_size)
    assert torch.equal(weight, again.language_projection.weight)
    assert not torch.equal(weight, other.language_projection.weight)
    assert not first.language_projection.bias.any()
    # 8,192 draws: the spread is within 5 standard errors, 5 / sqrt(2 * 8,192), of what is asked.
    asked = first.config.qformer_config.initializer_range
    assert float(weight.detach().std()) == pytest.approx(asked, rel=0.04)


def test_the_image_token_is_one_row_more_if_none_is_left(
    tiny_folder: Path, language_folder: Path
) -> None:
    base = based_on(tiny_folder, language_folder)
    processor = load_processor(base)
    plain = AutoTokenizer.from_pretrained(language_folder)
    decoder = AutoModelForCausalLM.from_pretrained(language_folder)
    image_id = processor.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    assert image_id == base.config.image_token_index == len(plain)
    rows = max(decoder.config.vocab_size, image_id + 1)
    model = load_model(base, dtype=torch.float32)
    assert model.get_input_embeddings().weight.shape[0] == rows
    assert model.config.text_config.vocab_size == rows
    assert model.get_output_embeddings().weight.shape[0] == rows


def test_a_changed_decoder_is_another_base(
    tiny_folder: Path, language_folder: Path, tmp_path: Path
) -> None:
    one = based_on(tiny_folder, language_folder)
    copy = Path(shutil.copytree(language_folder, tmp_path / "copy"))
    assert weights_hash(one) == weights_hash(based_on(tiny_folder, copy))
    weights = load_file(copy / "model.safetensors")
    next(iter(weights.values())).add_(1)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert weights_hash(one) != weights_hash(based_on(tiny_folder, copy))
    assert weights_hash(one) != weights_hash(based_on(tiny_folder, language_folder, seed=1))


def test_a_checkpoint_without_the_prefix_of_its_base_model_is_read(
    tiny_folder: Path, language_folder: Path, tmp_path: Path
) -> None:
    """As GPT-2 is on the hub; and with a buffer that older releases stored."""
    copy = Path(shutil.copytree(language_folder, tmp_path / "copy"))
    weights = {
        key.removeprefix("model."): tensor
        for key, tensor in load_file(copy / "model.safetensors").items()
    }
    weights["layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    plain, renamed = (
        load_model(based_on(tiny_folder, folder), dtype=torch.float32).state_dict()
        for folder in (language_folder, copy)
    )
    assert all(torch.equal(plain[key], renamed[key]) for key in plain)


def test_a_missing_and_an_unknown_weight_are_named(
    tiny_folder: Path, language_folder: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(language_folder, tmp_path / "copy"))
    weights = load_file(copy / "model.safetensors")
    key, tensor = weights.popitem()
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"missing weights: {key}"):
        based_on(tiny_folder, copy)
    save_file({**weights, key: tensor, "adapter": tensor.clone()}, copy / "model.safetensors")
    with pytest.raises(ModelError, match="unexpected weights: adapter"):
        based_on(tiny_folder, copy)


def test_a_tokenizer_of_another_model_is_refused(
    tiny_folder: Path, language_folder: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(language_folder, tmp_path / "copy"))
    tokenizer = AutoTokenizer.from_pretrained(copy)
    tokenizer.add_tokens([f"<extra{number}>" for number in range(200)])
    tokenizer.save_pretrained(copy)
    with pytest.raises(ModelError, match=r"model\.decoder.*its tokenizer has .* tokens"):
        based_on(tiny_folder, copy)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "t5"}, r"model\.decoder.*causal language model"),
        ({"model_type": "gpt_bigcode"}, "its decoder is gpt_bigcode"),
    ],
)
def test_a_decoder_without_a_row_is_refused(
    tiny_folder: Path, language_folder: Path, tmp_path: Path, changes: dict, said: str
) -> None:
    copy = Path(shutil.copytree(language_folder, tmp_path / "copy"))
    file = copy / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(ModelError, match=said):
        based_on(tiny_folder, copy)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"text_branch": "fresh"}, r"model\.text_branch.*model\.decoder is set"),
        ({"family": "blip2_question"}, r"model\.decoder.*model\.family is blip2_question"),
    ],
)
def test_what_does_not_go_with_another_decoder_is_refused(
    tiny_folder: Path, language_folder: Path, options: dict, said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        based_on(tiny_folder, language_folder, **options)


def test_only_a_blip2_checkpoint_gets_another_decoder(
    tiny_folder: Path, language_folder: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(tiny_folder, tmp_path / "other"))
    file = other / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_type": "instructblip"}))
    said = r"model\.decoder.*null: model\.id is of type instructblip"
    with pytest.raises(ModelError, match=said):
        based_on(other, language_folder)


def test_fewer_queries_and_another_image_size_go_with_it(
    tiny_folder: Path, language_folder: Path
) -> None:
    base = based_on(tiny_folder, language_folder, query_tokens=3, image_size=72)
    model = load_model(base, dtype=torch.float32)
    assert model.query_tokens.shape[1] == 3
    assert model.config.vision_config.image_size == 72
    processor = load_processor(base)
    assert processor.num_query_tokens == 3
    assert processor.image_processor.size["height"] == 72
