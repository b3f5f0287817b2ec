"""Alignment heads: Q-Former text branch, ITC projections, ITM head, LM head.

Shape letters: N rows, T text tokens, D Q-Former width, E embedding width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import Blip2QFormerConfig
from transformers.activations import ACT2FN
from transformers.models.blip_2.modeling_blip_2 import (
    Blip2QFormerIntermediate,
    Blip2QFormerOutput,
    Blip2TextEmbeddings,
)

START_TEMPERATURE = 0.07
"""Source: LAVIS, lavis/models/blip2_models/blip2_qformer.py, `temp`."""
TEMPERATURE_RANGE = (0.001, 0.5)
"""Source: ALBEF, models/model_pretrain.py, which keeps its temperature there at every step."""
PARTS = {
    "itc": ("embeddings", "text_layers", "vision_projection", "text_projection", "temperature"),
    "itm": ("embeddings", "text_layers", "itm_head"),
    "itg": ("embeddings", "text_layers", "lm_head"),
}
"""Parts of `AlignmentHeads` that each objective trains."""


class TextFeedForward(nn.Module):
    """Feed-forward part of a Q-Former layer for text; the layer itself has that for queries."""

    def __init__(self, config: Blip2QFormerConfig) -> None:
        super().__init__()
        self.intermediate = Blip2QFormerIntermediate(config)
        self.output = Blip2QFormerOutput(config)

    def forward(self, attended: Tensor) -> Tensor:
        """Attention outputs (N, T, D) to (N, T, D)."""
        return self.output(self.intermediate(attended), attended)


class TextPrediction(nn.Module):
    """Logits over the vocabulary, tied to the word embeddings.

    Source: BERT's masked-language head, which LAVIS' Q-Former keeps for text generation
    (lavis/models/blip2_models/Qformer.py, `BertOnlyMLMHead`).
    """

    def __init__(self, config: Blip2QFormerConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, states: Tensor, word_embeddings: Tensor) -> Tensor:
        """Logits (..., V) of text states (..., D), with word embeddings (V, D)."""
        hidden = self.layer_norm(self.activation(self.dense(states)))
        return linear(hidden, word_embeddings, self.bias)


class AlignmentHeads(nn.Module):
    """Text embeddings, text feed-forward layers, projections and heads for a shared Q-Former.

    The Q-Former's attention, norm and query tokens belong to the generation model. Names follow
    `Blip2ForImageTextRetrieval`, except `text_layers.N`, which is `qformer.encoder.layer.N` there,
    and `temperature` and `lm_head`, which it does not have.

    Args:
        config: Q-Former configuration, with vocabulary, positions and padding of the text branch.
        embedding_width: E, width of the ITC embeddings.
        generation_start_id: first token of ITG texts, BLIP-2's [DEC]; None: the tokenizer's own.
    """

    def __init__(
        self,
        config: Blip2QFormerConfig,
        *,
        embedding_width: int,
        text_generation: bool = False,
        generation_start_id: int | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.embedding_width = embedding_width
        self.generation_start_id = generation_start_id
        self.embeddings = Blip2TextEmbeddings(config)
        self.text_layers = nn.ModuleList(
            [TextFeedForward(config) for _ in range(config.num_hidden_layers)]
        )
        self.vision_projection = nn.Linear(config.hidden_size, embedding_width)
        self.text_projection = nn.Linear(config.hidden_size, embedding_width)
        self.itm_head = nn.Linear(config.hidden_size, 2)
        self.temperature = nn.Parameter(torch.tensor(START_TEMPERATURE))
        self.lm_head = TextPrediction(config) if text_generation else None

    @torch.no_grad()
    def clamp_temperature_(self) -> None:
        """Clamps the temperature to `TEMPERATURE_RANGE` after a step.

        Clamping in the forward pass would give it no gradient outside the range, and it could never
        return.
        """
        self.temperature.clamp_(*TEMPERATURE_RANGE)

    def train_only(self, objectives: Collection[str]) -> None:
        """Freezes parts that none of the objectives (`itc`, `itm`, `itg`) uses: DDP waits for the
        gradient of every trained weight.
        """
        trained = {part for objective in objectives for part in PARTS[objective]}
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name.partition(".")[0] in trained)
