"""KV cache of the prompt prefix that all rows of an image share.

Shape letters: I images, B rows, P prefix tokens, D decoder width, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

CACHE = next(
    field.name
    for field in fields(CausalLMOutputWithPast)
    if field.name in ("cache", "past_key_values")
)
"""Name of the KV cache in a decoder's `forward`, `generate` and outputs: `cache` since transformers
5.24, `past_key_values` before."""

# Settings with a KV cache of their own, another prompt pass, or other loops than transformers'
# greedy, sampling and beam search. Their rows are decoded without the prefix cache.
_WITHOUT_PREFIX_CACHE = (
    "assistant_early_exit", "cache_implementation", "constraints", "dola_layers",
    "encoder_no_repeat_ngram_size", "encoder_repetition_penalty", "force_words_ids",
    "guidance_scale", "is_assistant", "num_beam_groups", "penalty_alpha", "prefill_chunk_size",
    "prompt_lookup_num_tokens", "token_healing", "use_mtp",
)  # fmt: skip


def keys_values(decoder: PreTrainedModel, embeds: Tensor) -> Tensor:
    """(I, layers, 2, H, P, D / H) keys and values of the decoder for embedded prefixes (I, P, D).

    2 x layers x P x D numbers per image: 10.5 MB for the 32 visual tokens of BLIP-2-OPT-2.7B (32
    layers, width 2,560) in bfloat16, and 0.33 MB per further token.
    """
    cache = getattr(decoder(inputs_embeds=embeds, use_cache=True), CACHE)
    layers = [torch.stack([layer.keys, layer.values], dim=1) for layer in cache.layers]
    return torch.stack(layers, dim=1)


def cache_from_prefixes(
    prefixes: Sequence[Tensor], *, tokens: int, rows_per_prompt: int
) -> DynamicCache:
    """KV cache of rows from their prefixes; the prefixes are not modified.

    Args:
        prefixes: B of (layers, 2, H, P, D / H) from `keys_values`, one per row.
        tokens: number of their P tokens to use.
        rows_per_prompt: consecutive copies of each row in the cache.
    """
    cache = DynamicCache()
    for number in range(len(prefixes[0])):
        layer = torch.stack([prefix[number, ..., :tokens, :] for prefix in prefixes])
        keys, values = layer.repeat_interleave(rows_per_prompt, dim=0).unbind(1)
        cache.update(keys, values, number)
    return cache


def can_continue(model: GenerationMixin, settings: Mapping[str, Any]) -> bool:
    """Whether `generate` with these settings can continue from a KV cache with unchanged output."""
    return not any(setting(model, settings, name) for name in _WITHOUT_PREFIX_CACHE)


def rows_per_prompt(model: GenerationMixin, settings: Mapping[str, Any]) -> int:
    """Number of times `generate` repeats each row before it starts; it does not repeat a given
    cache.

    Source: `GenerationMixin.generate` in transformers, `expand_size`.
    """
    return max(
        setting(model, settings, "num_beams") or 1,
        setting(model, settings, "num_return_sequences") or 1,
    )


def setting(model: GenerationMixin, settings: Mapping[str, Any], name: str) -> Any:
    """A setting of `generate`, or the model's default."""
    return settings.get(name, getattr(model.generation_config, name, None))
