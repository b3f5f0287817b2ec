"""Builds a QVision model from a vision tower (CLIP, SigLIP, DINOv2) and a causal decoder."""

from __future__ import annotations

import copy
import re
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    PreTrainedModel,
)

from qvft.errors import ModelError, first_line
from qvft.models.checkpoint_files import read_config, refuse_weights
from qvft.models.decoders import QVISION, require_decoder_type
from qvft.models.image_size import interpolated_as, positions_of
from qvft.models.qvision.configuration import QVisionConfig
from qvft.models.qvision.modeling import QVisionForConditionalGeneration
from qvft.models.qvision.processing import marked_tokenizer, require_tower

COMPUTED_BUFFERS = re.compile(
    r"(position_ids|\.attn(\.attention)?\.(masked_)?bias|rotary_emb\.inv_freq)$"
)
"""Buffers that older checkpoints store and newer code computes.

Source: the non-persistent buffers `position_ids` of `CLIPVisionEmbeddings` and `bias` of
`GPTNeoSelfAttention` and `GPT2Attention` in transformers; `masked_bias` is gone from both.
"""


_EXPECTED = "a folder or hub id with safetensors"


def from_components(
    vision: str,
    decoder: str,
    config: QVisionConfig,
    *,
    seed: int,
    vision_revision: str | None = None,
    decoder_revision: str | None = None,
    dtype: torch.dtype = torch.float32,
    attention: str | dict[str, str] = "sdpa",
) -> QVisionForConditionalGeneration:
    """A model with the tower's and the decoder's weights and a randomly initialised Q-Former, in
    evaluation mode. The decoder's embeddings of `<START>` and `<END>` are initialised too, if
    missing.

    Args:
        vision, decoder: folders or hub ids with safetensors.
        config: from `components_config`, perhaps of another image size.
        seed: for all initialised weights, which depend only on it and on their geometry.

    Raises:
        ModelError: a checkpoint is not found, or has missing or unexpected weights.
    """
    tower = _load(AutoModel, vision, vision_revision, dtype)
    language_model = _load(AutoModelForCausalLM, decoder, decoder_revision, dtype)
    config = copy.deepcopy(config)
    with torch.random.fork_rng(devices=[]):
        model = QVisionForConditionalGeneration._from_config(
            config, dtype=dtype, attn_implementation=attention
        )
        torch.manual_seed(seed)
        for part in (model.qformer, model.vision_model.projection):
            _initialise(model, part)
        _resize_vocabulary(language_model, config.text_config.vocab_size)
    weights = tower.state_dict()
    key = positions_of(config).key.removeprefix("vision_model.tower.")
    weights[key] = interpolated_as(weights[key], config)
    model.vision_model.tower.load_state_dict(weights)
    model.language_model.load_state_dict(language_model.state_dict())
    return model.eval()


def components_config(
    vision: str,
    decoder: str,
    *,
    vision_revision: str | None = None,
    decoder_revision: str | None = None,
    **geometry: Any,
) -> QVisionConfig:
    """The configuration of the model that `from_components` makes, with the image size that the
    tower's config.json has (see `default_image_size`); no weights.

    Args:
        vision: a vision tower, e.g. `openai/clip-vit-base-patch32`.
        decoder: a causal language model with a row in `decoders.DECODERS`.
        geometry: fields of `QVisionConfig`, e.g. `num_query_tokens`.

    Raises:
        ModelError: a checkpoint is not found, or does not fit.
    """
    tower = read_config(vision, vision, vision_revision)
    text = read_config(decoder, decoder, decoder_revision, where="model.decoder")
    require_tower(tower.model_type, where=vision)
    require_decoder_type(text.model_type, family=QVISION, where=f"model.decoder={decoder}")
    tokenizer = marked_tokenizer(decoder, revision=decoder_revision)
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
            vision_config=tower.to_dict(),
            text_config=text_config,
            **{"qformer_hidden_size": width, **geometry},
        )
    except ValueError as error:
        raise ModelError(str(error), where=f"{vision} with {decoder}") from error


def _resize_vocabulary(language_model: PreTrainedModel, rows: int) -> None:
    """Resizes the decoder's vocabulary; new rows, those of an untied head too, are initialised like
    existing ones.
    """
    embeddings = language_model.get_input_embeddings().get_parameter("weight")
    old = embeddings.shape[0]
    if rows == old:
        return
    language_model.resize_token_embeddings(rows, mean_resizing=False)
    embeddings = language_model.get_input_embeddings().get_parameter("weight")
    head = language_model.get_output_embeddings().get_parameter("weight")
    with torch.no_grad():
        for weight in (embeddings,) if head is embeddings else (embeddings, head):
            mean, spread = weight[:old].mean(dim=0), weight[:old].std(dim=0)
            weight[old:] = mean + spread * torch.randn_like(weight[old:])


def _initialise(model: QVisionForConditionalGeneration, part: nn.Module) -> None:
    """Initialises the weights of a part."""
    for module in part.modules():
        for parameter in module.parameters(recurse=False):
            parameter._is_hf_initialized = False  # type: ignore[attr-defined]  # transformers' mark
        model._init_weights(module)


def _load(auto: Any, model_id: str, revision: str | None, dtype: torch.dtype) -> PreTrainedModel:
    """Loads a safetensors checkpoint; all keys are accounted for."""
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
    unexpected = {key for key in loading["unexpected_keys"] if not COMPUTED_BUFFERS.search(key)}
    for kind, keys in (
        ("missing", loading["missing_keys"]),
        ("unexpected", unexpected),
        ("ill-sized", {str(key) for key in loading["mismatched_keys"]}),
    ):
        refuse_weights(kind, keys, where=model_id)
    return model
