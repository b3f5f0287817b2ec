"""Tiny checkpoints with any decoder, of transformers' classes: BLIP-2, InstructBLIP, or alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Blip2ForConditionalGeneration,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from qvft.models.question_aware.graft import question_aware_config
from tools.tiny_blip2.geometry import EOS_ID, PAD_ID, QUERY_TOKENS, VOCABULARY_SIZE, tiny_config

SPECIAL: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": PAD_ID}
GEOMETRY: dict[str, Any] = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.1,
    **SPECIAL,
}
GPT: dict[str, Any] = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 64,
    "max_position_embeddings": 256,
    "initializer_range": 0.1,
    **SPECIAL,
}
GEMMA = GEOMETRY | {"head_dim": 16}
WINDOW = {"sliding_window": 210}
TEXT = {
    kind: CONFIG_MAPPING[kind](**fields)
    for kind, fields in {
        "llama": GEOMETRY | {"pad_token_id": None, "tie_word_embeddings": False},
        "qwen2": GEOMETRY | {"tie_word_embeddings": True},
        "qwen3": GEOMETRY | {"head_dim": 16},
        "mistral": GEOMETRY | WINDOW,
        "gemma": GEMMA | {"num_key_value_heads": 1},
        "gemma2": GEMMA | WINDOW | {"query_pre_attn_scalar": 16},
        "gemma3_text": GEMMA | WINDOW | {"query_pre_attn_scalar": 16},
        "gpt2": GPT
        | {"n_layer": 2, "n_head": 4}
        | dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
        "gpt_neo": GPT
        | {"num_layers": 2, "num_heads": 4, "window_size": 210}
        | {"attention_types": [[["global", "local"], 1]]},
        "t5": SPECIAL
        | {"vocab_size": VOCABULARY_SIZE, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2}
        | {"num_heads": 4, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
        | {"bos_token_id": None, "decoder_start_token_id": PAD_ID},
    }.items()
}
"""Decoder configurations by type. As published, Llama's tokenizer has no padding token, and
Qwen's no first one."""
LACKS: dict[str, dict[str, Any]] = {
    "llama": {"pad_token": None},
    **dict.fromkeys(("qwen2", "qwen3", "t5"), {"bos_token": None, "add_bos_token": False}),
}
END = {"SpecialToken": {"id": "</s>", "type_id": 0}}
ENDS = {
    "type": "TemplateProcessing",
    "single": [{"Sequence": {"id": "A", "type_id": 0}}, END],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, END],
    "special_tokens": {"</s>": {"id": "</s>", "ids": [EOS_ID], "tokens": ["</s>"]}},
}
"""T5's tokenizer ends every text with `</s>`."""


def write_model(folder: Path, processor: Path, text: Any, *, family: str = "blip2") -> Path:
    """A model of a family with this decoder and fresh weights.

    Args:
        processor: a folder with the tiny BLIP-2's processor.
    """
    shutil.copytree(processor, folder)
    for weights in folder.glob("model*"):
        weights.unlink()
    plain = type(tiny_config()).from_dict(tiny_config().to_dict() | {"text_config": text.to_dict()})
    made: Any = Blip2ForConditionalGeneration
    if family == "blip2_question":
        made = InstructBlipForConditionalGeneration
        plain = question_aware_config(
            plain, word_rows=VOCABULARY_SIZE, positions=128, pad_id=PAD_ID
        )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = made(plain)
        for parameter in model.qformer.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)  # no two weights start alike
        torch.nn.init.normal_(model.query_tokens, std=0.1)
        if text.model_type == "t5":  # two weights, as published
            head = model.language_model.lm_head
            head.weight = torch.nn.Parameter(0.1 * torch.randn(head.weight.shape))
        # Fresh output weights are so small that every text is the same; larger ones differ.
        model.language_projection.weight *= 100 if family == "blip2" else 10
    model.save_pretrained(folder)
    _write_tokenizer(folder, text.model_type)
    if family == "blip2_question":
        size = {"height": plain.vision_config.image_size, "width": plain.vision_config.image_size}
        InstructBlipProcessor(
            BlipImageProcessorPil(size=size),
            AutoTokenizer.from_pretrained(folder),
            AutoTokenizer.from_pretrained(processor),
            num_query_tokens=QUERY_TOKENS,
        ).save_pretrained(folder)
    return folder


def write_decoder(folder: Path, processor: Path, text: Any) -> Path:
    """A causal language model with fresh weights, and its tokenizer.

    Args:
        processor: a folder with the tiny BLIP-2's processor.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(text).save_pretrained(folder)
    AutoTokenizer.from_pretrained(processor).save_pretrained(folder)
    _write_tokenizer(folder, text.model_type)
    return folder


def _write_tokenizer(folder: Path, kind: str) -> None:
    """The tiny tokenizer without the tokens that the published one lacks."""
    lacks = LACKS.get(kind, {})
    file = folder / "tokenizer_config.json"
    content = json.loads(file.read_text()) | lacks
    if "bos_token" in lacks:
        ends = None
        if kind == "t5":
            ends, content["tokenizer_class"] = ENDS, "PreTrainedTokenizerFast"
        words = folder / "tokenizer.json"
        words.write_text(json.dumps(json.loads(words.read_text()) | {"post_processor": ends}))
    file.write_text(json.dumps(content))
