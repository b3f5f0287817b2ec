"""T5's output head, which has weights of its own from T5 1.1 (Flan-T5) on.

Their config.json says `tie_word_embeddings: false`. `T5Config` keeps that as
`scale_decoder_outputs: false` and sets `tie_word_embeddings` to true, since the class ties encoder
and decoder embeddings by it. So a model made from the configuration has a tied head, and loading a
checkpoint finds a head that should be tied and is not: transformers leaves it alone, as it should,
and warns that the configuration should say what it says already.

Source: transformers 5.23, models/t5/configuration_t5.py and `PreTrainedModel.tie_weights`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

HEAD = "language_model.lm_head.weight"
"""Its key in BLIP-2 and InstructBLIP."""
LOGGER = logging.getLogger("transformers.modeling_utils")


def has_own_head(config: Any) -> bool:
    """Whether a model of this configuration has a T5 whose head is not its embedding."""
    text = config.text_config
    return text.model_type == "t5" and not text.scale_decoder_outputs


@contextlib.contextmanager
def own_head_expected(config: Any) -> Iterator[None]:
    """Context in which transformers does not warn of the head that `has_own_head` expects."""
    if not has_own_head(config):
        yield
        return
    LOGGER.addFilter(_is_another)
    try:
        yield
    finally:
        LOGGER.removeFilter(_is_another)


def _is_another(record: logging.LogRecord) -> bool:
    """Whether a record is not the warning of different weights in embedding and head."""
    said = record.getMessage()
    return not ("NOT tie" in said and "shared.weight" in said and HEAD in said)
