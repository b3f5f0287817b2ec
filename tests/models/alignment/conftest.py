"""A small retrieval model, and a generation model with heads of the very same weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    OPTConfig,
)

from qvft.models.alignment.heads import AlignmentHeads
from qvft.models.alignment.initial_weights import heads_from_retrieval

VOCABULARY, QUERIES, WIDTH, EMBEDDING = 60, 4, 24, 10
# About 1 / sqrt(WIDTH), so that signals keep their size; transformers' 1e-10 for the ViT would
# leave every image alike.
INITIALIZER_RANGE = 0.2


@dataclass(frozen=True)
class Twins:
    """The same weights twice, in float64 and evaluation mode.

    Attributes:
        plain: transformers' own class.
        folder: where its weights lie in float32.
        model, heads: ours.
        pixels (3, 3, 16, 16), input_ids and text_mask (3, 5): a batch; the second text is padded.
    """

    plain: Blip2ForImageTextRetrieval
    folder: Path
    model: Blip2ForConditionalGeneration
    heads: AlignmentHeads
    pixels: Tensor
    input_ids: Tensor
    text_mask: Tensor

    @property
    def texts(self) -> dict[str, Tensor]:
        return {"input_ids": self.input_ids, "text_mask": self.text_mask}

    @property
    def features(self) -> Tensor:
        return self.model.vision_model(pixel_values=self.pixels).last_hidden_state


def small_config(*, text: bool) -> Blip2Config:
    """Three Q-Former layers, cross-attention in the first and the last."""
    sizes = {"num_attention_heads": 2, "intermediate_size": 40, "hidden_size": WIDTH}
    return Blip2Config(
        vision_config=Blip2VisionConfig(
            **sizes,
            num_hidden_layers=1,
            image_size=16,
            patch_size=8,
            initializer_range=INITIALIZER_RANGE,
        ),
        qformer_config=Blip2QFormerConfig(
            **sizes,
            vocab_size=VOCABULARY,
            num_hidden_layers=3,
            max_position_embeddings=12,
            initializer_range=INITIALIZER_RANGE,
            use_qformer_text_input=text,
        ),
        text_config=OPTConfig(
            vocab_size=VOCABULARY,
            hidden_size=16,
            word_embed_proj_dim=16,
            ffn_dim=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=32,
        ),
        num_query_tokens=QUERIES,
        image_text_hidden_size=EMBEDDING,
        image_token_index=VOCABULARY - 1,
        initializer_range=INITIALIZER_RANGE,
    )


@pytest.fixture(scope="session")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Twins:
    folder = tmp_path_factory.mktemp("retrieval")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(5)
        plain = Blip2ForImageTextRetrieval(small_config(text=True)).eval()
        for name, parameter in plain.named_parameters():
            # transformers starts queries and biases at 0, where mistakes with them are unseen.
            if name == "query_tokens" or name.endswith("bias"):
                parameter.normal_(std=INITIALIZER_RANGE)
        model = Blip2ForConditionalGeneration(small_config(text=False)).eval()
        pixels = torch.randn(3, 3, 16, 16).double()
        input_ids = torch.randint(2, VOCABULARY - 1, (3, 5))
    plain.save_pretrained(folder)
    shared = {k: v for k, v in plain.state_dict().items() if k in model.state_dict()}
    model.load_state_dict({**model.state_dict(), **shared})
    files = sorted(folder.glob("*.safetensors"))
    heads = heads_from_retrieval(
        model, config=plain.config, files=files, source="small", text_generation=True
    )
    text_mask = torch.ones_like(input_ids)
    text_mask[1, 3:] = 0
    return Twins(
        plain.double(),
        folder,
        model.double(),
        heads.eval().double(),
        pixels,
        input_ids,
        text_mask,
    )
