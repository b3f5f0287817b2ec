"""Builds a QVision model from a CLIP (or SigLIP) checkpoint and a decoder checkpoint."""

from __future__ import annotations

import re
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
)

from qvft.errors import ModelError
from qvft.models.checkpoint_files import first_line, load_part, refuse_weights
from qvft.models.checkpoint_safety import require_safe_checkpoint
from qvft.models.qvision.configuration import (
    DECODER_TYPES,
    VISION_TYPES,
    WHOLE_TYPES,
    QVisionConfig,
)
from qvft.models.qvision.modeling import QVisionForConditionalGeneration
from qvft.models.qvision.processing import marked_tokenizer

COMPUTED_BUFFERS = re.compile(
    r"(position_ids|\.attn(\.attention)?\.(masked_)?bias|rotary_emb\.inv_freq)$"
)
"""Buffers that older checkpoints store and newer code computes.

Source: the non-persistent buffers `position_ids` of `CLIPVisionEmbeddings` and `bias` of
`GPTNeoSelfAttention` and `GPT2Attention` in transformers; `masked_bias` is gone from both.
"""

_OUTSIDE_VISION = re.compile(
    r"^(text_model\.|text_projection\.|visual_projection\.|logit_scale$|logit_bias$)"
)
"""Parts of a CLIP or SigLIP besides its vision tower."""
_EXPECTED = "a folder or hub id with safetensors"


def from_components(
    vision: str,
    decoder: str,
    *,
    seed: int,
    vision_revision: str | None = None,
    decoder_revision: str | None = None,
    whole_vision: bool = True,
    dtype: torch.dtype = torch.float32,
    **geometry: Any,
) -> QVisionForConditionalGeneration:
    """A model with the tower's and the decoder's weights and a randomly initialised Q-Former, in
    evaluation mode.

    The decoder's embeddings of `<START>` and `<END>` are initialised too, if missing.

    Args:
        vision: folder or hub id with safetensors, e.g. `openai/clip-vit-base-patch32`.
        decoder: folder or hub id of a GPT-Neo, OPT or GPT-2 with its language-model head.
        seed: for all initialised weights, including the projection in front of the Q-Former; they
            depend only on it and on their geometry.
        vision_revision, decoder_revision: of hub ids.
        whole_vision: keeps a CLIP's text tower, as in the published counts.
        dtype: dtype of all weights.
        geometry: fields of `QVisionConfig`, e.g. `num_query_tokens`. The Q-Former's width is the
            decoder's unless given.

    Raises:
        ModelError: a checkpoint is not found, of another type, without safetensors, or has missing
            or unexpected weights; or the geometry does not fit.
    """
    tower = _load_tower(vision, vision_revision, dtype, with_text_tower=whole_vision)
    language_model = _load(AutoModelForCausalLM, decoder, decoder_revision, dtype, DECODER_TYPES)
    tokenizer = marked_tokenizer(decoder, revision=decoder_revision)
    where = f"{vision} with {decoder}"
    config = _config(tower.config, language_model.config, tokenizer, geometry, where=where)
    with torch.random.fork_rng(devices=[]):
        model = QVisionForConditionalGeneration(config).to(dtype)  # type: ignore[arg-type]  # stub of .to() drops self
        torch.manual_seed(seed)
        for part in (model.qformer, model.vision_model.projection):
            _initialise(model, part)
        _resize_vocabulary(language_model, config.text_config.vocab_size)
    model.vision_model.tower.load_state_dict(tower.state_dict())
    model.language_model.load_state_dict(language_model.state_dict())
    return model.eval()


def components_config(
    vision: str,
    decoder: str,
    *,
    vision_revision: str | None = None,
    decoder_revision: str | None = None,
) -> QVisionConfig:
    """The configuration of the model that `from_components` makes; no weights.

    Raises:
        ModelError: a checkpoint is not found or of another type, or the two do not fit.
    """
    tower = _read_config(vision, vision_revision, VISION_TYPES)
    text = _read_config(decoder, decoder_revision, DECODER_TYPES)
    tokenizer = marked_tokenizer(decoder, revision=decoder_revision)
    return _config(tower, text, tokenizer, {}, where=f"{vision} with {decoder}")


def _config(
    vision: PretrainedConfig,
    text: PretrainedConfig,
    tokenizer: Any,
    geometry: dict[str, Any],
    *,
    where: str,
) -> QVisionConfig:
    width = getattr(text, "word_embed_proj_dim", text.hidden_size)
    text_config = {
        **text.to_dict(),
        "vocab_size": max(text.vocab_size, len(tokenizer)),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    try:
        return QVisionConfig(
            vision_config=vision.to_dict(),
            text_config=text_config,
            **{"qformer_hidden_size": width, **geometry},
        )
    except ValueError as error:
        raise ModelError(str(error), where=where) from error


def _resize_vocabulary(language_model: PreTrainedModel, rows: int) -> None:
    """Resizes the decoder's vocabulary; new rows are initialised like existing ones."""
    old = language_model.get_input_embeddings().get_parameter("weight").shape[0]
    if rows == old:
        return
    language_model.resize_token_embeddings(rows, mean_resizing=False)
    with torch.no_grad():
        weight = language_model.get_input_embeddings().get_parameter("weight")
        mean, spread = weight[:old].mean(dim=0), weight[:old].std(dim=0)
        weight[old:] = mean + spread * torch.randn_like(weight[old:])


def _initialise(model: QVisionForConditionalGeneration, part: nn.Module) -> None:
    """Initialises the weights of a part."""
    for module in part.modules():
        for parameter in module.parameters(recurse=False):
            parameter._is_hf_initialized = False  # type: ignore[attr-defined]  # transformers' mark
        model._init_weights(module)


def _load_tower(
    model_id: str, revision: str | None, dtype: torch.dtype, *, with_text_tower: bool
) -> PreTrainedModel:
    """A CLIP or SigLIP, with or without its text tower."""
    config = _read_config(model_id, revision, VISION_TYPES)
    if with_text_tower or config.model_type not in WHOLE_TYPES:
        return _load(AutoModel, model_id, revision, dtype, VISION_TYPES)
    tower_class = type(AutoModel.from_config(config.vision_config))
    return _load(tower_class, model_id, revision, dtype, VISION_TYPES, ignored=_OUTSIDE_VISION)


def _read_config(model_id: str, revision: str | None, known: tuple[str, ...]) -> PretrainedConfig:
    config = load_part(
        AutoConfig, model_id, expected=_EXPECTED, revision=revision, trust_remote_code=False
    )
    require_safe_checkpoint(config, where=model_id)
    if config.model_type not in known:
        raise ModelError(
            f'model_type "{config.model_type}"',
            where=model_id,
            expected="one of " + ", ".join(known),
        )
    return config


def _load(
    auto: Any,
    model_id: str,
    revision: str | None,
    dtype: torch.dtype,
    known: tuple[str, ...],
    *,
    ignored: re.Pattern[str] | None = None,
) -> PreTrainedModel:
    """Loads a safetensors checkpoint; all keys are accounted for."""
    _read_config(model_id, revision, known)
    try:
        model, loading = auto.from_pretrained(
            model_id,
            revision=revision,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(first_line(error), where=model_id, expected=_EXPECTED) from error
    unexpected = {
        key
        for key in loading["unexpected_keys"]
        if not COMPUTED_BUFFERS.search(key) and not (ignored and ignored.search(key))
    }
    for kind, keys in (
        ("missing", loading["missing_keys"]),
        ("unexpected", unexpected),
        ("ill-sized", {str(key) for key in loading["mismatched_keys"]}),
    ):
        refuse_weights(kind, keys, where=model_id)
    return model
