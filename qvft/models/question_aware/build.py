"""Builds a question-aware model from a planned graft: weights, model and processor."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor
from transformers import (
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    InstructBlipQFormerConfig,
)
from transformers.utils.quantization_config import QuantizationConfigMixin

from qvft.errors import ModelError
from qvft.models.question_aware.graft import Graft
from qvft.models.question_aware.question_tokens import base_processor


def graft_state(graft: Graft) -> dict[str, Tensor]:
    """State dict of the model, memory-mapped from the sources' files unless rows are initialised.

    Tied weights are stored once. Only a word embedding that gets new rows, and feed-forward layers
    that start as copies, are copied.

    Raises:
        ModelError: the base stores two tensors where its configuration ties them into one.
    """
    _check_ties(graft)
    weights = graft.origins.weights
    held: dict[str, dict[str, Tensor]] = {}
    for source, checkpoint in (("base", graft.base), ("text", graft.text)):
        if checkpoint is not None:
            keys = {origin.key for origin in weights.values() if origin.source == source}
            held[source] = checkpoint.tensors(keys)
    generator = torch.Generator().manual_seed(graft.seed)
    scale = cast(InstructBlipQFormerConfig, graft.config.qformer_config).initializer_range
    state: dict[str, Tensor] = {}
    taken: set[tuple[str, str]] = set()
    # The order of `weights` is the model's, so that equal seeds give equal rows.
    for key, origin in weights.items():
        parts = [held[origin.source][origin.key]] if origin.source in held else []
        if (origin.source, origin.key) in taken:
            # A copy: with shared memory the two weights would be trained as one.
            parts = [parts[0].clone()]
        if parts:
            taken.add((origin.source, origin.key))
        if origin.fresh_rows:
            shape = (origin.fresh_rows, *origin.shape[1:])
            drawn = scale * torch.randn(shape, generator=generator)
            parts.append(drawn.to(parts[0].dtype) if parts else drawn)
        if parts:
            state[key] = parts[0] if len(parts) == 1 else torch.cat(parts)
    return state


def graft_model(
    graft: Graft,
    *,
    dtype: torch.dtype,
    attention: str | dict[str, str] = "sdpa",
    device: torch.device | None = None,
    quantization: QuantizationConfigMixin | None = None,
) -> InstructBlipForConditionalGeneration:
    """The model in evaluation mode on one device, loaded without a second copy in memory.

    Args:
        dtype: dtype of all weights that are not quantized.
        attention: attention kernel, or one by part, as transformers names it.
        device: device of the model.
        quantization: quantization config of the decoder, or None.
    """
    extra: dict[str, Any] = {}
    if quantization is not None:
        extra["quantization_config"] = quantization
        extra["device_map"] = {"": device or torch.device("cpu")}
    pair = InstructBlipForConditionalGeneration.from_pretrained(
        None,
        config=graft.config,
        state_dict=graft_state(graft),
        dtype=dtype,
        attn_implementation=attention,
        output_loading_info=True,
        **extra,
    )
    # Typed as a model alone, though it is a pair with `output_loading_info`.
    model, loading = cast(tuple[InstructBlipForConditionalGeneration, dict[str, Any]], pair)
    # The plan names every key: a remaining key is a bug.
    assert not any(
        loading[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
    ), loading
    if not extra:
        model = model.to(device or "cpu")  # type: ignore[arg-type]  # stub of .to() drops self
    return model.eval()


def graft_processor(graft: Graft) -> InstructBlipProcessor:
    """The base's image processor and tokenizer, with the Q-Former's tokenizer.

    Raises:
        ModelError: the base has none, or its `<image>` is not the model's.
    """
    processor = base_processor(graft.base)
    token_id = processor.tokenizer.convert_tokens_to_ids("<image>")
    if token_id != graft.config.image_token_index:
        raise ModelError(
            f"the tokenizer's <image> is {token_id}, the model's {graft.config.image_token_index}",
            where=graft.base.id,
            do="use the processor that belongs to the checkpoint",
        )
    return InstructBlipProcessor(
        processor.image_processor,
        processor.tokenizer,
        copy.deepcopy(graft.qformer_tokenizer),
        num_query_tokens=graft.config.num_query_tokens,
    )


def _check_ties(graft: Graft) -> None:
    for key, origin in graft.origins.weights.items():
        if origin.source != "tied" or ("base", key) not in graft.origins.unused:
            continue
        pair = graft.base.tensors([key, graft.origins.weights[origin.key].key])
        first, *rest = pair.values()
        if not all(torch.equal(first, other) for other in rest):
            raise ModelError(
                f"{key} and {origin.key} differ",
                where=f"model.id={graft.base.id}",
                expected="one tensor, as tie_word_embeddings in its config.json says",
            )
