"""Small random checkpoints of the three kinds that a question-aware model is grafted from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_models
import torch
from transformers import (
    AddedToken,
    BertConfig,
    BertForPreTraining,
    BertTokenizerFast,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    Blip2Processor,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    OPTConfig,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

WIDTH, LAYERS, QUERIES = 16, 2, 6
# `Blip2VisionConfig` defaults to 1e-10, which makes a random model blind; 0.3 is large enough for
# questions and images to move what is said by far more than rounding.
SCALE = 0.3
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz?", "##s", "is"]


def blip2_config(*, vocab_size: int, text_input: bool, image_token: int) -> Blip2Config:
    return Blip2Config(
        vision_config=Blip2VisionConfig(
            hidden_size=24,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=8,
            patch_size=4,
            initializer_range=SCALE,
        ),
        qformer_config=Blip2QFormerConfig(
            vocab_size=vocab_size,
            hidden_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=20,
            initializer_range=SCALE,
            cross_attention_frequency=2,
            use_qformer_text_input=text_input,
        ),
        text_config=OPTConfig(
            vocab_size=1200,
            hidden_size=WIDTH,
            num_hidden_layers=2,
            ffn_dim=32,
            num_attention_heads=2,
            max_position_embeddings=64,
            word_embed_proj_dim=WIDTH,
            dropout=0.0,
            init_std=SCALE,
            bos_token_id=2,
            eos_token_id=2,
            pad_token_id=1,
        ),
        num_query_tokens=QUERIES,
        image_text_hidden_size=8,
        image_token_index=image_token,
        initializer_range=SCALE,
    )


def fill(model: torch.nn.Module, seed: int) -> None:
    """Random weights everywhere, also where transformers starts from zeros and ones.

    Two kinds of weight that start alike could otherwise be swapped without a test noticing.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += SCALE * torch.randn(parameter.shape, generator=generator)


@pytest.fixture(scope="session")
def bert_words(tmp_path_factory: pytest.TempPathFactory) -> BertTokenizerFast:
    """A WordPiece tokenizer of 34 words, as `bert-base-uncased` has it."""
    folder = tmp_path_factory.mktemp("words")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return BertTokenizerFast.from_pretrained(folder, model_max_length=20)


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory, bert_words: BertTokenizerFast) -> Path:
    """BERT as `bert-base-uncased` lies on the hub: `bert.` before, `gamma` and `beta`, heads."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("bert")
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=24,
    )
    model = BertForPreTraining(config)
    fill(model, 3)
    model.save_pretrained(folder)
    bert_words.save_pretrained(folder)
    file = folder / "model.safetensors"
    weights = load_file(file)
    old = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for key, tensor in weights.items()
    }
    save_file(old, file, metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def retrieval_folder(tmp_path_factory: pytest.TempPathFactory, bert_folder: Path) -> Path:
    """As `Salesforce/blip2-itm-vit-g`: `[DEC]` has the last row, `<image>` the id beyond it."""
    folder = tmp_path_factory.mktemp("retrieval")
    rows = len(WORDS) + 1
    model = Blip2ForImageTextRetrieval(
        blip2_config(vocab_size=rows, text_input=True, image_token=rows)
    )
    fill(model, 2)
    model.save_pretrained(folder)
    tokenizer = BertTokenizerFast.from_pretrained(bert_folder)
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    Blip2Processor(_images(), tokenizer, num_query_tokens=QUERIES).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def blip2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BLIP-2 with an OPT decoder, its weights in several files."""

    folder = tmp_path_factory.mktemp("blip2")
    model = Blip2ForConditionalGeneration(
        blip2_config(vocab_size=30_522, text_input=False, image_token=1199)
    )
    fill(model, 1)
    model.save_pretrained(folder, max_shard_size="60KB")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 1
    tokenizer = tiny_models.tokenizer()
    assert tokenizer.convert_tokens_to_ids(str(AddedToken("<image>"))) == 1199
    Blip2Processor(_images(), tokenizer, num_query_tokens=QUERIES).save_pretrained(folder)
    return folder


def _images() -> BlipImageProcessorPil:
    return BlipImageProcessorPil(size={"height": 8, "width": 8})
