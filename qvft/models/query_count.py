"""Reduces the number of query tokens of a checkpoint."""

from __future__ import annotations

import copy

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from qvft.errors import ModelError


def config_with_queries(config: PretrainedConfig, count: int) -> PretrainedConfig:
    """A copy of a configuration with `count` query tokens; raises ModelError if it has fewer."""
    stored = config.num_query_tokens
    if not 1 <= count <= stored:
        raise ModelError(
            f"{count} of {stored} query tokens",
            where="model.query_tokens",
            expected=f"a number from 1 to {stored}",
        )
    config = copy.deepcopy(config)
    config.num_query_tokens = count
    return config


def keep_first_queries(model: PreTrainedModel, count: int) -> None:
    """Reduces a loaded model, in place, to its first `count` query tokens.

    Dtype, device and `requires_grad` stay; the configuration is updated. For BLIP-2 and
    question-aware models.
    """
    queries = model.get_parameter("query_tokens")
    kept = queries.detach()[:, :count].clone()
    model.query_tokens = nn.Parameter(kept, requires_grad=queries.requires_grad)
    model.config.num_query_tokens = count
