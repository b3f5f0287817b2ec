"""SmolLM2 (GGUF) as the Llama decoder of a BLIP-2 model, its tokenizer with an image token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AddedToken,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
)

from tools.real_parts.parts import reader

IMAGE_TOKEN = "<image>"


def read_decoder(file: Path) -> tuple[LlamaForCausalLM, Any]:
    """The model in float32 and the tokenizer of a GGUF file, read by transformers."""
    reader("gguf")
    folder, name = str(file.parent), file.name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    # SmolLM2 was pretrained without a first token, and its tokenizer adds none.
    tokenizer.bos_token = None
    return model.eval(), tokenizer


def plain_config(config: LlamaConfig, *, vocab_size: int) -> LlamaConfig:
    """The configuration without what it says about the GGUF file."""
    fields = config.to_dict()
    for name in ("quantization_config", "transformers_version", "architectures"):
        fields.pop(name, None)
    return LlamaConfig(**fields | {"vocab_size": vocab_size, "_name_or_path": ""})


def add_image_token(model: LlamaForCausalLM, tokenizer: Any) -> LlamaForCausalLM:
    """The model with a row for `<image>`, which is added to the tokenizer.

    The row is the mean of all others. It is never an input (the visual prefix replaces it), but the
    head is tied to it, so it must not be a likely output.
    """
    tokenizer.add_tokens(
        [AddedToken(IMAGE_TOKEN, normalized=False, special=True)], special_tokens=True
    )
    state = dict(model.state_dict())
    words = state["model.embed_tokens.weight"]
    state["model.embed_tokens.weight"] = torch.cat([words, words.mean(0, keepdim=True)])
    state.pop("lm_head.weight", None)
    config = plain_config(model.config, vocab_size=len(words) + 1)
    assert tokenizer.convert_tokens_to_ids(IMAGE_TOKEN) == len(words)
    larger = LlamaForCausalLM(config)
    missing, unexpected = larger.load_state_dict(state, strict=False)
    assert missing == ["lm_head.weight"] and not unexpected, (missing, unexpected)
    larger.tie_weights()
    return larger.eval()
