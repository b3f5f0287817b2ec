"""A model made from two checkpoints, a BLIP-2 and a text branch or another decoder: plan, weights,
model and processor.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    Blip2QFormerConfig,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    InstructBlipQFormerConfig,
    PreTrainedModel,
)
from transformers.utils.quantization_config import QuantizationConfigMixin

from qvft.errors import ModelError
from qvft.models.checkpoint_tensors import Checkpoint, base_processor
from qvft.models.weight_origins import Origins


@dataclass(frozen=True)
class Graft:
    """A checked plan; nothing is loaded yet.

    Attributes:
        sources: the checkpoints by the names that origins give them: `base`, the BLIP-2, first;
            then `text` or `decoder`, none for a fresh text branch.
        tokenizer: what the second checkpoint brings: the Q-Former's tokenizer of questions, or the
            decoder's with `<image>`.
    """

    sources: dict[str, Checkpoint]
    config: Blip2Config | InstructBlipConfig
    origins: Origins
    tokenizer: Any
    seed: int

    @property
    def base(self) -> Checkpoint:
        """The BLIP-2 checkpoint."""
        return self.sources["base"]

    @property
    def files(self) -> dict[str, list[Path]]:
        """The weight files of each source, sorted by path."""
        return {name: sorted({*one.files.values()}) for name, one in self.sources.items()}


def graft_state(graft: Graft) -> dict[str, Tensor]:
    """State dict of the model, memory-mapped from the sources' files unless rows are initialised.

    Tied weights are stored once. Only a word embedding that gets new rows, and feed-forward layers
    that start as copies, are copied.
    """
    _check_ties(graft)
    weights = graft.origins.weights
    tensors: dict[str, dict[str, Tensor]] = {}
    for source, checkpoint in graft.sources.items():
        keys = {origin.key for origin in weights.values() if origin.source == source}
        tensors[source] = checkpoint.tensors(keys)
    generator = torch.Generator().manual_seed(graft.seed)
    qformer = cast(InstructBlipQFormerConfig | Blip2QFormerConfig, graft.config.qformer_config)
    scale = qformer.initializer_range
    state: dict[str, Tensor] = {}
    used: set[tuple[str, str]] = set()
    # The order of `weights` is the model's, so that equal seeds give equal rows.
    for key, origin in weights.items():
        parts = [tensors[origin.source][origin.key]] if origin.source in tensors else []
        if (origin.source, origin.key) in used:
            # A copy: with shared memory the two weights would be trained as one.
            parts = [parts[0].clone()]
        if parts:
            used.add((origin.source, origin.key))
        if origin.fresh_rows:
            shape = (origin.fresh_rows, *origin.shape[1:])
            rows = torch.zeros(shape)
            if len(shape) > 1:  # biases start at zero
                rows = scale * torch.randn(shape, generator=generator)
            parts.append(rows.to(parts[0].dtype) if parts else rows)
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
) -> PreTrainedModel:
    """The model in evaluation mode on one device, loaded without a second copy in memory."""
    extra: dict[str, Any] = {}
    if quantization is not None:
        extra["quantization_config"] = quantization
        extra["device_map"] = {"": device or torch.device("cpu")}
    reads_question = isinstance(graft.config, InstructBlipConfig)
    model_class: Any = (
        InstructBlipForConditionalGeneration if reads_question else Blip2ForConditionalGeneration
    )
    model, loading = model_class.from_pretrained(
        None,
        config=graft.config,
        state_dict=graft_state(graft),
        dtype=dtype,
        attn_implementation=attention,
        output_loading_info=True,
        **extra,
    )
    # The plan names every key: a remaining key is a bug.
    assert not any(
        loading[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
    ), loading
    if not extra:
        model = model.to(device or "cpu")
    return model.eval()


def graft_processor(graft: Graft) -> Blip2Processor | InstructBlipProcessor:
    """The base's image processor with the decoder's tokenizer: that of a new decoder, or the base's
    beside the Q-Former's. Raises ModelError.
    """
    processor = base_processor(graft.base)
    images, queries = processor.image_processor, graft.config.num_query_tokens
    tokenizer = copy.deepcopy(graft.tokenizer)
    if not isinstance(graft.config, InstructBlipConfig):
        return Blip2Processor(images, tokenizer, num_query_tokens=queries)
    return InstructBlipProcessor(images, processor.tokenizer, tokenizer, num_query_tokens=queries)


def _check_ties(graft: Graft) -> None:
    for (source, key), twin in graft.origins.twins.items():
        if (source, key) not in graft.origins.unused:
            continue
        checkpoint = graft.sources[source]
        first, *rest = checkpoint.tensors([key, twin]).values()
        if not all(torch.equal(first, other) for other in rest):
            raise ModelError(
                f"{key} and {twin} differ",
                where=f"model.{'decoder' if source == 'decoder' else 'id'}={checkpoint.id}",
                expected="one tensor, as tie_word_embeddings in its config.json says",
            )
