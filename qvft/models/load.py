"""Loads a base checkpoint: model and processor."""

from __future__ import annotations

import copy
import importlib
import sys
from dataclasses import replace
from typing import Any, cast

import torch
import transformers
from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoProcessor,
    PretrainedConfig,
    PreTrainedModel,
)

from qvft.errors import ModelError
from qvft.models.base_checkpoint import BaseCheckpoint
from qvft.models.checkpoint_files import load_part, not_found, refuse_weights
from qvft.models.families import RETRIEVAL_CLASS, Family
from qvft.models.graft import graft_model, graft_processor
from qvft.models.image_size import processor_with_image_size, resize_positions, vision_of
from qvft.models.quantize import disable_cpu_repacking, quantization_config
from qvft.models.query_count import keep_first_queries
from qvft.models.question_aware.question_tokens import require_image_token
from qvft.models.qvision.components import from_components
from qvft.models.qvision.configuration import QVisionConfig
from qvft.models.qvision.processing import processor_from_components
from qvft.models.qvision.published import published_processor
from qvft.models.qvision.published_weights import read_published
from qvft.models.t5_head import own_head_expected

_BRIDGE = ("qformer", "query_tokens", "language_projection")
"""In float32, trained or not, so that a base and its runs compute in the same precision."""

if not sys.stderr.isatty():
    transformers.utils.logging.disable_progress_bar()


def gpu_has_bf16() -> bool:
    """Whether there is a GPU with native bfloat16."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def model_class(family: Family) -> Any:
    """The class of a family."""
    return getattr(importlib.import_module(family.module), family.model_class)


def load_model(
    base: BaseCheckpoint,
    *,
    dtype: torch.dtype,
    attention: str = "sdpa",
    quantize: str = "none",
    double_quantize: bool = True,
    device: torch.device | None = None,
    random_seed: int | None = None,
) -> PreTrainedModel:
    """Loads the model of a base checkpoint in evaluation mode, on one device.

    Args:
        quantize: `none`, or the decoder's 4-bit type `nf4` or `fp4`.
        device: one device per process, never `device_map="auto"`.
        random_seed: None loads the weights; a seed initialises random ones.

    Raises:
        ModelError: weights are missing, are not safetensors, or do not fit the configuration.
    """
    device = device or torch.device("cpu")
    kernel = _kernel_by_part(base, attention)
    if random_seed is not None:
        from transformers import set_seed  # imports PEFT and bitsandbytes

        set_seed(random_seed)
        random_model = model_class(base.family)._from_config(
            base.config, dtype=dtype, attn_implementation=kernel
        )
        return random_model.to(device).eval()
    quantization = None
    if quantize != "none":
        quantization = quantization_config(
            base.family, quantize, double=double_quantize, compute_dtype=dtype
        )
    if base.decoder is not None:
        assert quantization is None, "refused by base_of"
        model: PreTrainedModel = from_components(
            base.location,
            base.decoder,
            cast(QVisionConfig, base.config),
            seed=base.seed,
            vision_revision=base.revision,
            decoder_revision=base.decoder_revision,
            dtype=dtype,
            attention=kernel,
        )
        return _prepared(base.family, model, device)
    config = copy.deepcopy(base.config)
    config.num_query_tokens = base.stored_queries or config.num_query_tokens
    if base.stored_image_size is not None:
        vision_of(config).image_size = base.stored_image_size
    if base.graft is not None:
        graft = replace(base.graft, config=cast(Any, config))
        model = graft_model(
            graft, dtype=dtype, attention=kernel, device=device, quantization=quantization
        )
    else:
        model = _stored_model(base, config, dtype, kernel, device, quantization)
    if base.stored_queries is not None:
        keep_first_queries(model, base.config.num_query_tokens)
    if base.stored_image_size is not None:
        resize_positions(model, vision_of(base.config).image_size)
    return _prepared(base.family, model, device if quantization is None else None)


def _kernel_by_part(base: BaseCheckpoint, attention: str) -> str | dict[str, str]:
    """The kernel, but eager attention in a decoder for which transformers has no sdpa: GPT-Neo,
    Gemma 2.
    """
    decoder = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(base.config.text_config), None)
    has_sdpa = getattr(decoder, "_supports_sdpa", True)
    if has_sdpa or attention != "sdpa" or not base.family.image_tokens:
        return attention
    return {part: "sdpa" for part in ("", *base.config.sub_configs)} | {"text_config": "eager"}


def _prepared(
    family: Family, model: PreTrainedModel, device: torch.device | None
) -> PreTrainedModel:
    """The model in evaluation mode, its bridge in float32; device None does not move it."""
    if device is not None:
        model.to(device)  # type: ignore[arg-type]  # stub of .to() drops self
    for name, parameter in model.named_parameters():
        if family.component(name) in _BRIDGE:
            parameter.data = parameter.data.float()
    disable_cpu_repacking(model)
    return model.eval()


def _stored_model(
    base: BaseCheckpoint,
    config: PretrainedConfig,
    dtype: torch.dtype,
    attention: str | dict[str, str],
    device: torch.device,
    quantization: Any,
) -> PreTrainedModel:
    """The model from one checkpoint, with every key accounted for."""
    written = config.architectures or ()
    if RETRIEVAL_CLASS in written and base.family.model_class != RETRIEVAL_CLASS:
        raise ModelError(
            f"a {RETRIEVAL_CLASS}, which has no decoder to write texts",
            where=base.id,
            expected=f"a {base.family.model_class}",
            do="qvft embed, qvft search and qvft predict --classes take it",
        )
    extra: dict[str, Any] = {}
    location: str | None = base.location
    if base.published:
        location = None
        weights = read_published(base.location, cast(QVisionConfig, config), base.revision)
        extra["state_dict"] = weights
    if quantization is not None:
        extra |= {"quantization_config": quantization, "device_map": {"": device}}
    try:
        with own_head_expected(config):
            model, loading = model_class(base.family).from_pretrained(
                location,
                config=config,
                revision=base.revision,
                dtype=dtype,
                attn_implementation=attention,
                use_safetensors=True,
                output_loading_info=True,
                **extra,
            )
    except (OSError, ValueError, SafetensorError) as error:
        raise not_found(base.id, error) from error
    for kind, named in (
        ("missing", "missing_keys"),
        ("unexpected", "unexpected_keys"),
        ("ill-sized", "mismatched_keys"),
    ):
        keys = [str(key) for key in loading.get(named, ())]
        expected = "a complete checkpoint of this family"
        refuse_weights(kind, keys, where=base.id, expected=expected)
    return model


def load_processor(base: BaseCheckpoint) -> Any:
    """The processor (image processor and tokenizer) of a base checkpoint."""
    processor = _stored_processor(base)
    if base.stored_image_size is not None:
        return processor_with_image_size(processor, vision_of(base.config).image_size)
    return processor


def _stored_processor(base: BaseCheckpoint) -> Any:
    """The processor with the image size that the checkpoint has."""
    if base.decoder is not None:
        return processor_from_components(
            base.location,
            base.decoder,
            vision_revision=base.revision,
            decoder_revision=base.decoder_revision,
        )
    if base.published:
        return published_processor(base.location, base.revision)
    if base.graft is not None:
        processor: Any = graft_processor(base.graft)
    else:
        processor = load_part(
            AutoProcessor,
            base.location,
            where=base.id,
            revision=base.revision,
            trust_remote_code=False,
        )
    if not base.family.image_tokens:
        return processor
    processor.num_query_tokens = base.config.num_query_tokens
    require_image_token(processor, base.config.image_token_index, where=base.id)
    return processor
