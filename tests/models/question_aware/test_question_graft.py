"""The grafted model: each weight is its source's, and without a question it is BLIP-2."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    Blip2ForConditionalGeneration,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
)

from qvft.errors import ModelError
from qvft.files import sha256_file
from qvft.models.blip2 import encode_vision
from qvft.models.forward_stages import encode_images
from qvft.models.graft import graft_model, graft_processor
from qvft.models.question_aware.forward_stages import encode_rows
from qvft.models.question_aware.graft import find_graft, require_plain_base

BERT_ROWS = 34
DEC, IMAGE = 34, 35

# Masked positions weigh exactly zero, so only the order of float32 sums can differ: some ten
# roundings of 6e-8 on values near 1, in two layers.
ROUNDING = 1e-5


@pytest.fixture
def blip2(blip2_folder: Path) -> Blip2ForConditionalGeneration:
    return Blip2ForConditionalGeneration.from_pretrained(blip2_folder).eval()


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def grafted(
    base: Path, text: Path | str, *, seed: int = 0, attention: str = "sdpa"
) -> InstructBlipForConditionalGeneration:
    graft = find_graft(str(base), str(text), seed=seed)
    return graft_model(graft, dtype=torch.float32, attention=attention)


def test_each_weight_is_its_sources_bit_by_bit(blip2, blip2_folder, retrieval_folder) -> None:
    model = grafted(blip2_folder, retrieval_folder).state_dict()
    base, text = blip2.state_dict(), load_file(retrieval_folder / "model.safetensors")
    layer = "qformer.encoder.layer.1"
    for key, expected in (
        ("qformer.embeddings.layernorm.weight", base["qformer.layernorm.weight"]),
        ("qformer.embeddings.layernorm.bias", base["qformer.layernorm.bias"]),
        (
            "qformer.embeddings.position_embeddings.weight",
            text["embeddings.position_embeddings.weight"],
        ),
        (f"{layer}.intermediate.dense.weight", text[f"{layer}.intermediate.dense.weight"]),
        (f"{layer}.output.LayerNorm.bias", text[f"{layer}.output.LayerNorm.bias"]),
    ):
        assert torch.equal(model[key], expected), key
    same = [key for key in base if key in model]
    assert len(same) == len(base) - 2  # all but the LayerNorm, whose name differs
    assert all(torch.equal(model[key], base[key]) for key in same)


def test_berts_old_names_are_read(blip2_folder, bert_folder) -> None:
    model = grafted(blip2_folder, bert_folder).state_dict()
    text = load_file(bert_folder / "model.safetensors")
    for new, old in (("weight", "gamma"), ("bias", "beta")):
        ours = model[f"qformer.encoder.layer.0.output.LayerNorm.{new}"]
        assert torch.equal(ours, text[f"bert.encoder.layer.0.output.LayerNorm.{old}"])


def test_a_retrieval_source_brings_its_dec_row_and_gets_one_for_image(
    blip2_folder, retrieval_folder
) -> None:
    words = grafted(blip2_folder, retrieval_folder).qformer.embeddings.word_embeddings.weight
    theirs = load_file(retrieval_folder / "model.safetensors")["embeddings.word_embeddings.weight"]
    assert (len(theirs), len(words)) == (DEC + 1, IMAGE + 1)
    assert torch.equal(words[: DEC + 1], theirs)


def test_bert_gets_a_drawn_row_for_dec(blip2_folder, bert_folder) -> None:
    graft = find_graft(str(blip2_folder), str(bert_folder))
    assert graft.tokenizer.convert_tokens_to_ids("[DEC]") == DEC == BERT_ROWS
    assert graft.origins.summary()["fresh_rows"] == {
        "qformer.embeddings.word_embeddings.weight": [BERT_ROWS, BERT_ROWS + 1]
    }
    first, again, other = (
        grafted(blip2_folder, bert_folder, seed=seed).qformer.embeddings.word_embeddings.weight
        for seed in (0, 0, 1)
    )
    theirs = load_file(bert_folder / "model.safetensors")["bert.embeddings.word_embeddings.weight"]
    assert torch.equal(first[:BERT_ROWS], theirs)
    assert torch.equal(first, again)
    assert not torch.equal(first[DEC], other[DEC])


def test_dec_does_not_change_how_a_question_is_written(
    blip2_folder, bert_folder, bert_words
) -> None:
    tokenizer = graft_processor(find_graft(str(blip2_folder), str(bert_folder))).qformer_tokenizer
    assert tokenizer("is a?")["input_ids"] == bert_words("is a?")["input_ids"]


def test_the_layer_norm_after_the_embeddings_is_applied_once(
    blip2, blip2_folder, bert_folder
) -> None:
    model = grafted(blip2_folder, bert_folder)
    ours = model.qformer.embeddings(query_embeds=model.query_tokens)
    assert torch.equal(ours, blip2.qformer.layernorm(blip2.query_tokens))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("length", [0, 5])
def test_without_a_question_the_prefix_is_blip2s(
    blip2, blip2_folder, retrieval_folder, pixels, attention: str, length: int
) -> None:
    model = grafted(blip2_folder, retrieval_folder, attention=attention)
    blip2.set_attn_implementation(attention)
    with torch.no_grad():
        features = encode_vision(model, pixels)
        assert torch.equal(features, encode_vision(blip2, pixels))
        ours = encode_rows(
            model,
            features,
            image_index=torch.tensor([2, 0, 1, 0]),
            qformer_input_ids=torch.full((4, length), 7),
            qformer_attention_mask=torch.zeros(4, length, dtype=torch.long),
        )
        theirs = encode_images(blip2, pixels)[[2, 0, 1, 0]]
    assert (ours - theirs).abs().max() <= ROUNDING * theirs.abs().max()


def test_a_question_moves_the_prefix_far_beyond_rounding(
    blip2_folder, retrieval_folder, pixels
) -> None:
    model = grafted(blip2_folder, retrieval_folder)
    with torch.no_grad():
        prefix = encode_rows(
            model,
            encode_vision(model, pixels),
            image_index=torch.tensor([0, 0, 0]),
            qformer_input_ids=torch.tensor([[2, 6, 3], [2, 9, 3], [2, 9, 3]]),
            qformer_attention_mask=torch.tensor([[1, 1, 1], [1, 1, 1], [0, 0, 0]]),
        )
    apart = torch.pdist(prefix.flatten(1)) / prefix[0].norm()
    assert apart.min() > 1000 * ROUNDING


def test_a_row_does_not_depend_on_how_far_it_is_padded(
    blip2_folder, retrieval_folder, pixels
) -> None:
    model = grafted(blip2_folder, retrieval_folder)
    ids = torch.tensor([[2, 6, 9, 3]])
    with torch.no_grad():
        features = encode_vision(model, pixels[:1])
        prefixes = [
            encode_rows(
                model,
                features,
                image_index=torch.tensor([0]),
                qformer_input_ids=torch.nn.functional.pad(ids, (0, padding)),
                qformer_attention_mask=torch.nn.functional.pad(torch.ones_like(ids), (0, padding)),
            )
            for padding in (0, 6)
        ]
    assert (prefixes[0] - prefixes[1]).abs().max() <= ROUNDING * prefixes[0].abs().max()


def test_a_vision_tower_in_half_precision_feeds_a_q_former_in_full(
    blip2_folder, retrieval_folder, pixels
) -> None:
    model = grafted(blip2_folder, retrieval_folder)
    model.vision_model.bfloat16()
    with torch.no_grad():
        prefix = encode_rows(
            model,
            encode_vision(model, pixels.bfloat16()),
            image_index=torch.arange(3),
            qformer_input_ids=torch.full((3, 2), 7),
            qformer_attention_mask=torch.ones(3, 2, dtype=torch.long),
        )
    assert prefix.dtype == torch.float32
    assert bool(torch.isfinite(prefix).all())


def test_a_fresh_branch_starts_as_a_copy_that_is_trained_apart(blip2_folder) -> None:
    model = grafted(blip2_folder, "fresh")
    for layer in model.qformer.encoder.layer:
        pairs = [
            *zip(
                layer.intermediate.parameters(), layer.intermediate_query.parameters(), strict=True
            ),
            *zip(layer.output.parameters(), layer.output_query.parameters(), strict=True),
        ]
        assert len(pairs) == 6
        assert all(torch.equal(text, query) for text, query in pairs)
        assert all(text.data_ptr() != query.data_ptr() for text, query in pairs)


def test_training_a_loaded_model_leaves_the_sources_alone(blip2_folder, bert_folder) -> None:
    files = [*sorted(blip2_folder.glob("*.safetensors")), bert_folder / "model.safetensors"]
    before = [sha256_file(file) for file in files]
    model = grafted(blip2_folder, bert_folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    assert [sha256_file(file) for file in files] == before


def test_every_part_has_a_gradient_from_a_question(blip2_folder, bert_folder, pixels) -> None:
    model = grafted(blip2_folder, bert_folder)
    encode_rows(
        model,
        encode_vision(model, pixels),
        image_index=torch.arange(3),
        qformer_input_ids=torch.tensor([[2, 6, 3]] * 3),
        qformer_attention_mask=torch.ones(3, 3, dtype=torch.long),
    ).square().sum().backward()
    last = "encoder.layer.1."
    without = {
        name
        for name, parameter in model.qformer.named_parameters()
        if parameter.grad is None or not bool(parameter.grad.any())
    }
    # What the last layer makes of the text is not read: only the queries leave the Q-Former.
    assert without == {
        f"{last}{name}.{kind}"
        for name in ("intermediate.dense", "output.dense", "output.LayerNorm")
        for kind in ("weight", "bias")
    }


def test_one_masked_column_keeps_every_weight_in_the_graph(
    blip2_folder, bert_folder, pixels
) -> None:
    model = grafted(blip2_folder, bert_folder)
    encode_rows(
        model,
        encode_vision(model, pixels),
        image_index=torch.arange(3),
        qformer_input_ids=torch.zeros(3, 1, dtype=torch.long),
        qformer_attention_mask=torch.zeros(3, 1, dtype=torch.long),
    ).square().sum().backward()
    assert [name for name, p in model.qformer.named_parameters() if p.grad is None] == []
    text = [p for name, p in model.qformer.named_parameters() if ".word_embeddings" in name]
    assert not any(bool(p.grad.any()) for p in text)


def test_instructblip_needs_no_text_branch() -> None:
    with pytest.raises(ModelError, match=r"its Q-Former reads the question already"):
        require_plain_base(InstructBlipConfig(), "x")
