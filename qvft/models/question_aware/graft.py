"""Makes a question-aware model from a BLIP-2 checkpoint and a text branch.

The class is transformers' `InstructBlipForConditionalGeneration`, unchanged, with an OPT decoder.
"""

from __future__ import annotations

import copy
from typing import Any

from transformers import (
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipQFormerConfig,
    InstructBlipVisionConfig,
)

from qvft.errors import ModelError
from qvft.models.checkpoint_tensors import Checkpoint, base_processor, open_checkpoint
from qvft.models.graft import Graft
from qvft.models.model_path import FRESH
from qvft.models.question_aware.origins import TextKind, plan_origins
from qvft.models.question_aware.question_tokens import (
    highest_id,
    prepare_tokenizer,
    question_tokenizer,
)
from qvft.models.weight_origins import model_shapes


def find_graft(
    base_id: str,
    text_branch: str,
    *,
    base_location: str | None = None,
    revision: str | None = None,
    seed: int = 0,
) -> Graft:
    """Reads configurations, tokenizers and weight headers, and plans every weight.

    Args:
        base_id: a BLIP-2 checkpoint with a decoder-only language model.
        text_branch: `Salesforce/blip2-itm-vit-g` or another retrieval checkpoint, BERT, or `fresh`.

    Raises:
        ModelError: a checkpoint is not found, or does not fit.
    """
    base = open_checkpoint(base_id, where="model.id", location=base_location, revision=revision)
    require_plain_base(base.config, base.id)
    text = None
    if text_branch != FRESH:
        text = open_checkpoint(text_branch, where="model.text_branch")
    kind = _kind(text)
    tokenizer, positions = _question_tokenizer(base, text)
    rows = highest_id(tokenizer) + 1
    if text is not None:
        rows = max(rows, _rows(text, "word_embeddings"))
    config = question_aware_config(
        base.config, word_rows=rows, positions=positions, pad_id=tokenizer.pad_token_id
    )
    shapes, tied = model_shapes(InstructBlipForConditionalGeneration, config)
    origins = plan_origins(
        shapes, tied, base=base.shapes, text=text.shapes if text else {}, kind=kind
    )
    sources = {"base": base} if text is None else {"base": base, "text": text}
    return Graft(sources, config, origins, tokenizer, seed)


def question_aware_config(
    base: Any, *, word_rows: int, positions: int, pad_id: int
) -> InstructBlipConfig:
    """A BLIP-2 configuration as InstructBLIP configuration, with a text branch."""
    qformer = _fields(base.qformer_config, InstructBlipQFormerConfig)
    qformer.update(vocab_size=word_rows, max_position_embeddings=positions, pad_token_id=pad_id)
    return InstructBlipConfig(
        vision_config=_fields(base.vision_config, InstructBlipVisionConfig),
        qformer_config=qformer,
        text_config=copy.deepcopy(base.text_config),
        num_query_tokens=base.num_query_tokens,
        image_token_index=base.image_token_index,
        initializer_factor=base.initializer_factor,
        initializer_range=base.initializer_range,
    )


def _fields(config: Any, config_class: type) -> dict[str, Any]:
    """Values of a configuration for the fields that another class also has."""
    of_class = {"model_type", "transformers_version", "architectures", "dtype"}
    names = set(config_class().to_dict()) - of_class
    return {key: value for key, value in config.to_dict().items() if key in names}


def require_plain_base(config: Any, name: str) -> None:
    """Raises ModelError unless this is a BLIP-2 with a decoder-only language model."""
    if config.model_type != "blip-2" or not config.use_decoder_only_language_model:
        found = getattr(getattr(config, "text_config", None), "model_type", "no")
        raise ModelError(
            f'model_type "{config.model_type}" with a decoder of type {found}',
            where=f"model.id={name}",
            expected="a BLIP-2 checkpoint with a decoder-only language model",
            do="leave out model.text_branch: its Q-Former reads the question already"
            if config.model_type == "instructblip"
            else None,
        )
    if config.image_token_index is None:
        raise ModelError(
            "config.json names no image token",
            where=f"model.id={name}",
            do="use a newer revision of the checkpoint",
        )


def _kind(text: Checkpoint | None) -> TextKind:
    if text is None:
        return "fresh"
    kinds: dict[str, TextKind] = {"blip-2": "retrieval", "bert": "bert"}
    if text.config.model_type not in kinds:
        raise ModelError(
            f'model_type "{text.config.model_type}"',
            where=f"model.text_branch={text.id}",
            expected=f"a BLIP-2 retrieval checkpoint, BERT, or {FRESH}",
        )
    return kinds[text.config.model_type]


def _question_tokenizer(base: Checkpoint, text: Checkpoint | None) -> tuple[Any, int]:
    """The Q-Former's tokenizer and its number of positions."""
    qformer = base.config.qformer_config
    if text is None:
        positions = qformer.max_position_embeddings
        tokenizer = copy.deepcopy(base_processor(base).tokenizer)
        return prepare_tokenizer(tokenizer, positions=positions), positions
    text_config = text.config.qformer_config if text.config.model_type == "blip-2" else text.config
    for name in ("hidden_act", "layer_norm_eps"):
        found, required = getattr(text_config, name), getattr(qformer, name)
        if found != required:
            raise ModelError(
                f"{name} is {found}, BLIP-2's Q-Former has {required}",
                where=f"model.text_branch={text.id}",
                expected="a text branch of the same architecture",
            )
    positions = _rows(text, "position_embeddings")
    words = _rows(text, "word_embeddings")
    return question_tokenizer(text, word_rows=words, positions=positions), positions


def _rows(text: Checkpoint, table: str) -> int:
    """Rows of an embedding in the file: old configurations state another number."""
    for prefix in ("", "bert."):
        shape = text.shapes.get(f"{prefix}embeddings.{table}.weight")
        if shape is not None:
            return shape[0]
    raise ModelError(
        f"no embeddings.{table}.weight",
        where=f"model.text_branch={text.id}",
        expected="a Blip2ForImageTextRetrieval or BERT checkpoint; BLIP-2 models that write text "
        "have no text branch",
    )
