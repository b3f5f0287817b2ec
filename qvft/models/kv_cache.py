"""Name of the KV cache argument in transformers: `cache` since 5.24, `past_key_values` before."""

from __future__ import annotations

from dataclasses import fields

from transformers.modeling_outputs import CausalLMOutputWithPast

CACHE = next(
    field.name
    for field in fields(CausalLMOutputWithPast)
    if field.name in ("cache", "past_key_values")
)
"""Name of the KV cache in a decoder's `forward`, `generate` and outputs."""
