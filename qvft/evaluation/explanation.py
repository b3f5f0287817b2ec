"""Where the queries that a word used look: maps over the image's patches, word by word.

A word's map is the decoder's attention to the visual tokens, at the positions that write the word's
tokens, times the Q-Former's cross-attention of those query tokens to the patches. Both are averaged
over heads and over all layers that have them. What the queries tell each other in the Q-Former, and
what positions tell each other in the decoder, is not followed: the map is a reading aid, and
`explanation_faithfulness.py` measures what it is worth.

Shape letters: B rows, L row length, Q query tokens, P patches, S patches a side.
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
from qvft.models.attention import Attention, attend

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Word:
    """A word of a text and where the queries that it used look.

    Attributes:
        text: the word.
        map: (S, S) attention to each patch, from the top left.
        on_image: share of the decoder's attention that goes to visual tokens, the rest to words.
    """

    text: str
    map: FloatArray
    on_image: float


@dataclass(frozen=True)
class Explanation:
    """What the attention of one text shows.

    Attributes:
        text: the caption or answer, as explained.
        words: its words in order.
        map: (S, S) the mean over the tokens of all words.
        queries: (Q, S, S) where each query token looks, whatever the words.
        used: (Q,) the decoder's attention to each query token, mean over the tokens of all words.
        similarity: (Q, Q) cosine between what the Q-Former made of the query tokens.
        on_class_token: share of the queries' attention that goes to the ViT's class token, which
            has no place in the image and is in no map.
        decoder_layers, cross_layers: numbers of the layers averaged over, from 0.
    """

    text: str
    words: tuple[Word, ...]
    map: FloatArray
    queries: FloatArray
    used: FloatArray
    similarity: FloatArray
    on_class_token: float
    decoder_layers: tuple[int, ...]
    cross_layers: tuple[int, ...]


def explain_texts(
    model: PreTrainedModel, collator: Collator, rows: Sequence[Row], texts: Sequence[str]
) -> list[Explanation | None]:
    """The explanation of a text for each row; None where there is no word to explain.

    The text is read as a training target is, so that the attention is that of writing it.

    Args:
        model: in evaluation mode.
        rows: B captions or questions with their images.
        texts: (B,) what the model said, or anything else.

    Raises:
        ModelError: as `attention.attend`.
        ImageError: an image cannot be decoded.
    """
    batch = target_batch(collator, rows, texts, place=model.device)
    attention = attend(model, batch["pixel_values"], batch)
    template = collator.template
    found: list[Explanation | None] = []
    for row in range(len(rows)):
        where = text_positions(batch["labels"][row])
        ids = batch["input_ids"][row, where].tolist()
        spans = word_spans(template.tokenizer, ids)
        is_image = batch["input_ids"][row] == template.image_token_id
        found.append(_explain(attention, row, where, spans, is_image) if spans else None)
    return found


def target_batch(
    collator: Collator, rows: Sequence[Row], texts: Sequence[str], *, place: Any
) -> dict[str, Tensor]:
    """The collator's batch of rows with their targets replaced, on a device, one image a row."""
    aimed = [replace(row, target=text) for row, text in zip(rows, texts, strict=True)]
    batch = collator(list(enumerate(aimed)))
    batch["pixel_values"] = batch["pixel_values"][batch["image_index"]]
    return {key: value.to(place) for key, value in batch.items()}


def text_positions(labels: Tensor) -> Tensor:
    """Positions of a target's words in its row of labels (L,): the supervised ones without stop."""
    return (labels != IGNORED).nonzero()[:-1, 0]


def word_spans(tokenizer: Any, ids: Sequence[int]) -> list[tuple[str, slice]]:
    """Each word with its tokens: a word begins at a token that begins with white space."""
    starts = [0] + [
        place
        for place, token in enumerate(ids)
        if place and tokenizer.decode([token])[:1].isspace()
    ]
    spans = [slice(a, b) for a, b in zip(starts, [*starts[1:], len(ids)], strict=True)]
    words = [(tokenizer.decode(ids[span]).strip(), span) for span in spans]
    return [(word, span) for word, span in words if word]


def _explain(
    attention: Attention,
    row: int,
    where: Tensor,
    spans: Sequence[tuple[str, slice]],
    is_image: Tensor,
) -> Explanation:
    decoder = attention.decoder[:, row].mean(dim=0)  # (L, L)
    cross = attention.cross[:, row].mean(dim=0)  # (Q, P + 1)
    patches = cross[:, 1:]
    side = round(patches.shape[1] ** 0.5)
    # A token is written at the position before it.
    used = decoder[where - 1][:, is_image]  # (tokens, Q)
    maps = (used @ patches).view(-1, side, side)
    words = tuple(
        Word(text, _array(maps[span].mean(dim=0)), float(used[span].sum(dim=1).mean()))
        for text, span in spans
    )
    outputs = normalize(attention.queries[row], dim=-1)
    return Explanation(
        text=" ".join(text for text, _ in spans),
        words=words,
        map=_array(maps.mean(dim=0)),
        queries=_array(patches.reshape(-1, side, side)),
        used=_array(used.mean(dim=0)),
        similarity=_array(outputs @ outputs.T),
        on_class_token=float(cross[:, 0].mean()),
        decoder_layers=attention.decoder_layers,
        cross_layers=attention.cross_layers,
    )


def _array(tensor: Tensor) -> FloatArray:
    return tensor.double().cpu().numpy()
