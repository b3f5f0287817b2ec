"""A model with alignment heads: of a run, or of a retrieval checkpoint.

Shape letters: I images, M texts, Q query tokens, P patches, E embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qvft.adapters.checkpoint import Alignment
from qvft.models.alignment.heads import START_TEMPERATURE, AlignmentHeads
from qvft.models.alignment.qformer_states import image_embeddings, text_embeddings
from qvft.models.alignment.text_tokens import MAX_TOKENS, encode_texts
from qvft.models.base_checkpoint import BaseCheckpoint
from qvft.models.blip2 import encode_vision, query_states
from qvft.models.families import FAMILIES, RETRIEVAL_CLASS
from qvft.models.finite_outputs import require_finite
from qvft.setup.alignment_heads import saved_branch
from qvft.setup.itc_heads import require_contrast
from qvft.setup.model import Loaded, base_model, base_of
from qvft.setup.resolve_model import ResolvedModel, load_resolved, resolve_model

_HEADS = ("embeddings", "vision_projection", "text_projection", "itm_head")


@dataclass(frozen=True)
class AlignmentModel:
    """A model with alignment heads, in evaluation mode; embeds images and texts."""

    loaded: Loaded
    branch: Alignment

    @torch.no_grad()
    def text_vectors(self, texts: Sequence[str], *, batch_size: int = 64) -> Tensor:
        """Unit vectors (M, E) float32; raises FailedError if one is NaN or infinite."""
        parts = []
        for start in range(0, len(texts), batch_size):
            ids, mask = self.encode(texts[start : start + batch_size])
            parts.append(
                text_embeddings(self.loaded.blip2, self.branch.heads, input_ids=ids, text_mask=mask)
            )
        return require_finite(torch.cat(parts), "the vectors")

    @torch.no_grad()
    def features(self, pixels: Tensor) -> Tensor:
        """ViT features (I, P, width) of normalised images."""
        model = self.loaded.blip2
        return encode_vision(model, pixels.to(model.device, model.dtype))

    @torch.no_grad()
    def image_vectors(self, pixels: Tensor) -> Tensor:
        """Unit vectors (I, Q, E) float32 of normalised images; raises as `text_vectors`."""
        states = query_states(self.loaded.blip2, self.features(pixels))
        return require_finite(image_embeddings(self.branch.heads, states), "the vectors")

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokens of the text branch and their mask (M, T), on the model's device."""
        longest = self.branch.max_text_tokens
        ids, mask = encode_texts(self.branch.tokenizer, texts, max_tokens=longest)
        return ids.to(self.loaded.model.device), mask.to(self.loaded.model.device)


def load_alignment_model(name: Path | str, overrides: Sequence[str] = ()) -> AlignmentModel:
    """Loads a finished run with its alignment heads, or a retrieval checkpoint.

    Args:
        name: run folder, exported retrieval folder, or hub id of a `Blip2ForImageTextRetrieval`.

    Raises:
        CheckpointError: it has no alignment heads.
        UserError: the run's base, or the checkpoint of its text branch, is not found.
    """
    return open_alignment(resolve_model(str(name), overrides=overrides))


def open_alignment(opened: ResolvedModel) -> AlignmentModel:
    """As `load_alignment_model`, of a resolved model."""
    if opened.kind == "run":
        return with_heads(opened, load_resolved(opened))
    require_contrast(opened)
    base = retrieval_base(base_of(opened.recipe))
    loaded = base_model(opened.recipe, base)
    heads, tokenizer = heads_of(loaded.model), loaded.processor.tokenizer
    longest = min(MAX_TOKENS, heads.config.max_position_embeddings)
    return AlignmentModel(loaded, Alignment(heads, ("itc", "itm"), base.id, longest, tokenizer))


def with_heads(opened: ResolvedModel, loaded: Loaded) -> AlignmentModel:
    """Adds the heads of a run to its loaded model."""
    assert opened.home is not None
    return AlignmentModel(loaded, saved_branch(opened.home / "adapter", opened.recipe, loaded))


def retrieval_base(base: BaseCheckpoint) -> BaseCheckpoint:
    """The base to load with `load_model`: family `blip2` with the retrieval class, which has its
    ViT, Q-Former and query tokens, and heads instead of a decoder."""
    blip2 = FAMILIES["blip2"]
    shared = {part: blip2.parts[part] for part in ("vision", "qformer", "query_tokens")}
    parts = {**shared, **{name: name for name in _HEADS}}
    return replace(base, family=replace(blip2, model_class=RETRIEVAL_CLASS, parts=parts))


def heads_of(model: Any) -> AlignmentHeads:
    """The heads of a `Blip2ForImageTextRetrieval`, which keeps its weights, cast to float32.

    The class has no temperature: it keeps its initial value, which no score depends on.
    """
    with torch.device("meta"):
        heads = AlignmentHeads(
            model.config.qformer_config, embedding_width=model.config.image_text_hidden_size
        )
    for name in _HEADS:
        setattr(heads, name, getattr(model, name))
    for text_layer, layer in zip(heads.text_layers, model.qformer.encoder.layer, strict=True):
        text_layer.intermediate, text_layer.output = layer.intermediate, layer.output
    heads.temperature = nn.Parameter(torch.tensor(START_TEMPERATURE))
    return heads.float().eval()
