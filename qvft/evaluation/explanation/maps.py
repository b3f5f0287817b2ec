"""Attention heatmaps (saliency maps) over image patches, per word.

A word's map is the text's attention to the query tokens, at the positions that write the word's
tokens, times the Q-Former's cross-attention of those query tokens to the patches. Both are averaged
over heads and layers; where text attends to query tokens depends on the family
(`models.attention_maps`). Self-attention in Q-Former and decoder is not followed, so a heatmap is
only a hint; `tools/faithfulness.py` measures what it is worth.

Shape letters: B rows, L row length, K things that the text reads, Q query tokens, P patches,
R rows and C columns of patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.nn.functional import normalize
from transformers import PreTrainedModel

from qvft.data.collate import IGNORED, Collator
from qvft.data.rows import Row
from qvft.models.attention_capture import Attention
from qvft.models.attention_maps import attend

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Cosines:
    """The three cosine similarities that the published QVision shows of an image.

    The context token is the first visual token, followed by the query tokens. Patches are outputs
    of the encoder's linear layer, which has the width of the visual tokens.

    Attributes:
        context_to_queries: (Q - 1,) the context token with each query token.
        context_to_patches: (R, C) the context token with each patch.
        queries_to_patches: (R, C) the mean over the query tokens of their cosine with each patch.
    """

    context_to_queries: FloatArray
    context_to_patches: FloatArray
    queries_to_patches: FloatArray


@dataclass(frozen=True)
class Word:
    """A word of a text with its heatmap.

    Attributes:
        map: (R, C) attention to each patch, from the top left.
        used: (Q,) the text's attention to each query token, mean over the word's tokens.
    """

    text: str
    map: FloatArray
    used: FloatArray

    @property
    def on_image(self) -> float:
        """Share of the text's attention on query tokens."""
        return float(self.used.sum())


@dataclass(frozen=True)
class Explanation:
    """Attention heatmaps of a text.

    Attributes:
        map: (R, C) the mean over the tokens of all words.
        queries: (Q, R, C) attention of each query token to patches, independent of words.
        used: (Q,) the text's attention to each query token, mean over the tokens of all words.
        similarity: (Q, Q) cosine similarity of the query outputs.
        on_class_token: share of the queries' attention on the ViT's class token, which is not in
            the heatmaps; None if queries do not attend to it.
        reads_words: whether the attention to query tokens competes with that to words, so that
            `Word.on_image` is not 1.
        reading, limit: as in `Attention`.
        text_layers, cross_layers: averaged layers, from 0.
        cosines: cosine similarities of visual tokens and patches, if they share a space, as in
            QVision; else None. The first query is then the context token.
    """

    text: str
    words: tuple[Word, ...]
    map: FloatArray
    queries: FloatArray
    used: FloatArray
    similarity: FloatArray
    on_class_token: float | None
    reads_words: bool
    reading: str
    limit: str
    text_layers: tuple[int, ...]
    cross_layers: tuple[int, ...]
    cosines: Cosines | None


def explain_texts(
    model: PreTrainedModel, collator: Collator, rows: Sequence[Row], texts: Sequence[str]
) -> list[Explanation | None]:
    """The explanation of a text for each row; None if there is no word to explain.

    The text is processed as a training target (teacher forcing).

    Args:
        model: in evaluation mode.
        rows: B captions or questions with their images.
        texts: (B,) generated or other texts.

    Raises:
        ModelError: as `attention_maps.attend`.
        ImageError: an image cannot be decoded.
    """
    batch = target_batch(collator, rows, texts, place=model.device)
    attention = attend(model, batch["pixel_values"], batch)
    template = collator.template
    found: list[Explanation | None] = []
    for row in range(len(rows)):
        # Supervised positions without the stop token.
        where = (batch["labels"][row] != IGNORED).nonzero()[:-1, 0]
        ids = batch["input_ids"][row, where].tolist()
        spans = word_spans(template.tokenizer, ids)
        found.append(_explain(attention, row, where, spans) if spans else None)
    return found


def target_batch(
    collator: Collator, rows: Sequence[Row], texts: Sequence[str], *, place: Any
) -> dict[str, Tensor]:
    """The collated batch of rows with other targets, on a device, one image per row."""
    aimed = [replace(row, target=text) for row, text in zip(rows, texts, strict=True)]
    batch = collator(list(enumerate(aimed)))
    batch["pixel_values"] = batch["pixel_values"][batch["image_index"]]
    return {key: value.to(place) for key, value in batch.items()}


def word_spans(tokenizer: Any, ids: Sequence[int]) -> list[tuple[str, slice]]:
    """Each word with its tokens: a word begins at a token that begins with white space."""
    starts = [0] + [
        place for place, token in enumerate(ids) if place and _begins_word(tokenizer, token)
    ]
    spans = [slice(a, b) for a, b in zip(starts, [*starts[1:], len(ids)], strict=True)]
    words = [(tokenizer.decode(ids[span]).strip(), span) for span in spans]
    return [(word, span) for word, span in words if word]


def _begins_word(tokenizer: Any, token: int) -> bool:
    """Whether a token begins with white space, which SentencePiece writes as U+2581 and drops from
    the text of a single token.
    """
    written = tokenizer.convert_ids_to_tokens(token)
    return bool(written.startswith("\u2581") or tokenizer.decode([token])[:1].isspace())


def _explain(
    attention: Attention, row: int, where: Tensor, spans: Sequence[tuple[str, slice]]
) -> Explanation:
    text = attention.text[:, row].mean(dim=0)  # (L, K)
    cross = attention.cross[:, row].mean(dim=0)  # (Q, P), or with a class token (Q, P + 1)
    patches = cross[:, 1:] if attention.has_class_token else cross
    is_query = attention.is_query[row]
    # A token is predicted at the position before it.
    used = text[where - 1][:, is_query]  # (tokens, Q)
    maps = (used @ patches).view(-1, *attention.grid)
    words = tuple(
        Word(word, _array(maps[span].mean(dim=0)), _array(used[span].mean(dim=0)))
        for word, span in spans
    )
    outputs = normalize(attention.queries[row], dim=-1)
    return Explanation(
        text=" ".join(word for word, _ in spans),
        words=words,
        map=_array(maps.mean(dim=0)),
        queries=_array(patches.reshape(-1, *attention.grid)),
        used=_array(used.mean(dim=0)),
        similarity=_array(outputs @ outputs.T),
        on_class_token=float(cross[:, 0].mean()) if attention.has_class_token else None,
        reads_words=not bool(is_query.all()),
        reading=attention.reading,
        limit=attention.limit,
        text_layers=attention.text_layers,
        cross_layers=attention.cross_layers,
        cosines=cosines(attention, row),
    )


def cosines(attention: Attention, row: int) -> Cosines | None:
    """Cosine similarities of a row's image; None if patches are in another space."""
    if attention.features is None:
        return None
    context, queries = normalize(attention.queries[row], dim=-1).tensor_split([1])
    patches = normalize(attention.features[row], dim=-1)
    return Cosines(
        context_to_queries=_array((queries @ context.T)[:, 0]),
        context_to_patches=_array((context @ patches.T).view(attention.grid)),
        queries_to_patches=_array((queries @ patches.T).mean(dim=0).view(attention.grid)),
    )


def _array(tensor: Tensor) -> FloatArray:
    return tensor.double().cpu().numpy()
