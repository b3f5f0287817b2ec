"""Configuration of a question-aware model, derived from BLIP-2's."""

from __future__ import annotations

import copy
from typing import Any

from transformers import InstructBlipConfig, InstructBlipQFormerConfig, InstructBlipVisionConfig


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
