"""Initialises the alignment heads from a seed or from a BLIP-2 retrieval checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2QFormerConfig

from qvft.errors import ModelError
from qvft.log import get_logger
from qvft.models.alignment.heads import AlignmentHeads
from qvft.models.checkpoint_files import refuse_weights

logger = get_logger("qvft.train")

SHARED = ("vision_model.", "qformer.", "query_tokens")
"""Prefixes of retrieval weights that the generation model already has."""
DERIVED = ("embeddings.position_ids",)
"""Saved by older versions of transformers: position ids 0, 1, 2, ..."""
NOT_IN_RETRIEVAL = ("temperature", "lm_head.")
"""Not in any retrieval checkpoint; it keeps its initial value."""
_EXPECTED = "the weights of a Blip2ForImageTextRetrieval"
_SAME_GEOMETRY = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
    "layer_norm_eps", "cross_attention_frequency", "encoder_hidden_size",
)  # fmt: skip


def retrieval_name(name: str) -> str:
    """Name of a weight of `AlignmentHeads` in `Blip2ForImageTextRetrieval`."""
    return f"qformer.encoder.layer.{name[12:]}" if name.startswith("text_layers.") else name


def qformer_config(config: Blip2Config) -> Blip2QFormerConfig:
    """The Q-Former's part of a configuration; until it is built, transformers types it as more."""
    return cast(Blip2QFormerConfig, config.qformer_config)


def text_config(
    model: Blip2ForConditionalGeneration, *, vocab_size: int, pad_id: int | None, positions: int
) -> Blip2QFormerConfig:
    """The model's Q-Former configuration with a text branch."""
    config = copy.deepcopy(qformer_config(model.config))
    config.vocab_size, config.pad_token_id = vocab_size, pad_id
    config.max_position_embeddings, config.use_qformer_text_input = positions, True
    return config


def fresh_heads(
    model: Blip2ForConditionalGeneration,
    *,
    vocab_size: int,
    pad_id: int,
    positions: int,
    seed: int,
    text_generation: bool = False,
) -> AlignmentHeads:
    """Initialises heads from a seed, in float32 on the model's device.

    Matrices are normal with the Q-Former's `initializer_range`, biases zero. The text's
    feed-forward layers start as copies of the queries', as BLIP-2's query layers started as copies
    of BERT's (Source: LAVIS, lavis/models/blip2_models/blip2_qformer.py, `_query` weights).

    The global random state is unchanged.
    """
    config = text_config(model, vocab_size=vocab_size, pad_id=pad_id, positions=positions)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        heads = AlignmentHeads(
            config,
            embedding_width=model.config.image_text_hidden_size,
            text_generation=text_generation,
        )
        for module in heads.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=config.initializer_range)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
    with torch.no_grad():
        heads.embeddings.word_embeddings.weight[pad_id].zero_()
        for text_layer, layer in zip(heads.text_layers, model.qformer.encoder.layer, strict=True):
            for part in ("intermediate", "output"):
                query_weights = layer.get_submodule(f"{part}_query").state_dict()
                text_layer.get_submodule(part).load_state_dict(query_weights)
    return heads.to(model.query_tokens.device)


def heads_from_retrieval(
    model: Blip2ForConditionalGeneration,
    *,
    config: Blip2Config,
    files: Iterable[Path],
    source: str,
    text_generation: bool = False,
    generation_start_id: int | None = None,
) -> AlignmentHeads:
    """Heads with the weights of a `Blip2ForImageTextRetrieval` checkpoint, in float32.

    They were trained with that checkpoint's Q-Former, not with the generation model's, which was
    trained further: an initialisation, not a finished retrieval model. Raises ModelError if the
    geometry differs, or a key is missing, unknown or of another shape.
    """
    other = qformer_config(config)
    _check_geometry(qformer_config(model.config), other, source)
    qformer = text_config(
        model,
        vocab_size=other.vocab_size,
        pad_id=other.pad_token_id,
        positions=other.max_position_embeddings,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        heads = AlignmentHeads(
            qformer,
            embedding_width=config.image_text_hidden_size,
            text_generation=text_generation,
            generation_start_id=generation_start_id,
        )
    names = {retrieval_name(name): name for name in heads.state_dict()}
    own = set(model.state_dict())
    state, unused = _read(files, names, own, source)
    initialised = [name for name in names.values() if name.startswith(NOT_IN_RETRIEVAL)]
    missing = set(names) - {retrieval_name(name) for name in (*state, *initialised)}
    refuse_weights("missing", missing, where=source, expected=_EXPECTED)
    load_heads(heads, {**heads.state_dict(), **state}, source=source)
    logger.info(
        "text branch: %d weights loaded from %s, %d unused; initialised: %s",
        len(state),
        source,
        len(unused),
        ", ".join(initialised),
    )
    return heads.to(model.query_tokens.device)


def load_heads(heads: AlignmentHeads, state: Mapping[str, Tensor], *, source: str) -> None:
    """Loads weights of `heads.state_dict()`; raises ModelError for other keys or shapes."""
    own = heads.state_dict()
    for kind, keys in (("missing", own.keys() - state.keys()), ("unknown", state.keys() - own)):
        refuse_weights(kind, keys, where=source, expected=_EXPECTED)
    wrong = [key for key in own if own[key].shape != state[key].shape]
    refuse_weights("ill-sized", wrong, where=source, expected=_EXPECTED)
    heads.load_state_dict(dict(state))


def _read(
    files: Iterable[Path], names: Mapping[str, str], own: set[str], source: str
) -> tuple[dict[str, Tensor], list[str]]:
    """The heads' weights by our names, and the unused keys."""
    state: dict[str, Tensor] = {}
    unused, unknown = [], []
    for file in files:
        with safe_open(file, framework="pt") as stream:
            for key in stream.keys():  # noqa: SIM118
                if key in names:
                    state[names[key]] = stream.get_tensor(key).float()
                elif key in DERIVED or (key.startswith(SHARED) and key in own):
                    unused.append(key)
                else:
                    unknown.append(key)
    refuse_weights("unknown", unknown, where=source, expected=_EXPECTED)
    return state, unused


def _check_geometry(ours: Blip2QFormerConfig, other: Blip2QFormerConfig, source: str) -> None:
    for key in _SAME_GEOMETRY:
        if getattr(ours, key) != getattr(other, key):
            raise ModelError(
                f"its Q-Former has {key} {getattr(other, key)}",
                where=source,
                expected=f"{getattr(ours, key)}, as in the generation model",
                do="take a retrieval checkpoint of the same BLIP-2, or fresh heads",
            )
