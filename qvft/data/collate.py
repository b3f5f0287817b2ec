"""Collator: rows to a batch of pixels, input ids, labels; prompt tokens and padding are masked.

Shape letters: I images, B rows, L longest row, T longest prompt of the Q-Former, E prompts of an
encoder, P its longest prompt or patches of the ViT, W its width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from qvft.data.images.augmentation import Augmentation
from qvft.data.images.decoding import decode
from qvft.data.images.resizing import resized
from qvft.data.packing import Packer
from qvft.data.prompt import PromptTemplate, TokenRow
from qvft.data.rows import FILLER, Row
from qvft.data.sample import ImageSource
from qvft.data.token_stats import encode

IGNORED = -100
WIDTH_STEP = 8
"""Rows are padded to a multiple of this many tokens in generation, to limit the number of batch
shapes."""


def pad_rows(
    rows: Sequence[Sequence[int]], pad_id: int, *, side: str = "right", width: int = 0
) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask` (B, L) of token rows, padded on one side.

    L is the longest row's length, or `width` if larger. Training pads on the right, generation on
    the left. The mask comes from the lengths, not from ids: OPT's end-of-text token also begins
    every text.
    """
    longest = max(width, *(len(row) for row in rows))
    ids = torch.full((len(rows), longest), pad_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        span = slice(0, len(row)) if side == "right" else slice(longest - len(row), longest)
        ids[index, span] = torch.tensor(row, dtype=torch.long)
        mask[index, span] = 1
    return {"input_ids": ids, "attention_mask": mask}


@dataclass(frozen=True)
class QuestionReader:
    """Tokenizes prompts for a question-aware Q-Former.

    The text is the decoder's prompt, for questions and captions, as with a plain processor.

    Args:
        tokenizer: the Q-Former's tokenizer.
        most_tokens: longer texts are truncated on the left, as prompts are.
    """

    tokenizer: Any
    most_tokens: int

    def ids(self, text: str) -> tuple[int, ...]:
        """Tokens of a text with special tokens, which are all that an empty text has."""
        ids = self.tokenizer(text, split_special_tokens=True, verbose=False)["input_ids"]
        return tuple(ids[max(0, len(ids) - self.most_tokens) :])

    def batch(self, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """`qformer_input_ids` and `qformer_attention_mask` (B, T), padded on the right; T > 0.

        On the right in generation too: a token's position id is its column.
        """
        padded = pad_rows(rows, self.tokenizer.pad_token_id, width=1)
        return {f"qformer_{key}": value for key, value in padded.items()}


@dataclass(frozen=True)
class Collator:
    """Collates rows to a training or evaluation batch; runs in DataLoader workers.

    Steps: decode each image once, tokenize each text with the prompt template, pad or pack.

    Args:
        template: prompt template, which tokenizes texts.
        image_processor: the checkpoint's image processor.
        max_image_pixels: larger images are refused.
        cache: in-memory cache of normalised images by name and view, 12 * height * width bytes
            each, in this process (so it needs a DataLoader without workers); None: no cache.
        reader: tokenizes the prompt for a Q-Former that reads it, else None.
        packer: sequence packing; None: rows are padded.
        features: cached ViT features (I, P, W) of images and their views, instead of decoding them.
        augmentation: makes the augmented views of training rows (view above 0).

    Returns of a call, a dict of:
        pixel_values (I, 3, height, width) float32, or features (I, P, W);
        image_index (B,) long: image index of each row;
        input_ids (B, L) long; attention_mask (B, L) long, from lengths, never from pad ids;
        labels (B, L) long: the token itself at target and stop positions, -100 elsewhere and in
            rows that only fill the batch up;
        row_index (B,) long: row number in the dataset;
        with a reader qformer_input_ids and qformer_attention_mask (B, T) long;
        with a packer what `packing.packed` returns;
        where an encoder reads the prompt, `input_ids` has the decoder's rows alone, and there are
        encoder_input_ids, encoder_attention_mask (E, P) long: each prompt with its image, once;
        encoder_index (B,) long: prompt of each row; encoder_rows (E,) long: first row of each. The
        reader's tensors are (E, T) then.
    """

    template: PromptTemplate
    image_processor: Any
    max_image_pixels: int
    cache: dict[tuple[str, int], Tensor] | None = None
    reader: QuestionReader | None = None
    packer: Packer | None = None
    features: Callable[..., Tensor] | None = None
    augmentation: Augmentation | None = None

    def __call__(self, rows: Sequence[tuple[int, Row]]) -> dict[str, Tensor]:
        images: dict[tuple[str, int], int] = {}
        sources: list[ImageSource] = []
        for _, row in rows:
            if (row.sample.id, row.view) not in images:
                images[row.sample.id, row.view] = len(sources)
                sources.append(row.sample.image)
        views = [view for _, view in images]
        tokens = [encode(row, self.template) for _, row in rows]
        image_index = [images[row.sample.id, row.view] for _, row in rows]
        prompts = [self.template.prompt_text(*row.asked) for _, row in rows]
        batch = self.token_batch(tokens, image_index, prompts)
        labels = torch.full_like(batch["input_ids"], IGNORED)
        for index, token_row in enumerate(tokens):
            if rows[index][0] != FILLER:
                span = self.template.target_span(token_row)
                labels[index, span] = batch["input_ids"][index, span]
        return {
            **self.seen(sources, views),
            "image_index": torch.tensor(image_index),
            **batch,
            "labels": labels,
            "row_index": torch.tensor([index for index, _ in rows]),
        }

    def token_batch(
        self, tokens: Sequence[TokenRow], image_index: Sequence[int], prompts: Sequence[str]
    ) -> dict[str, Tensor]:
        """The tensors of a call that the model reads beside the images; `prompts` are for the
        reader.
        """
        ids = [row.ids for row in tokens]
        owners, first = list(image_index), list(range(len(ids)))
        encoded: dict[str, Tensor] = {}
        if self.template.start_id is not None:
            encoded, owners, first = _encoder_batch(tokens, image_index, self.template.pad_id)
            ids = [(self.template.start_id, *row.ids[row.target_start :]) for row in tokens]
        packing = {} if self.packer is None else self.packer(ids, owners)
        read = self.read([prompts[row] for row in first])
        return {**pad_rows(ids, self.template.pad_id), **packing, **encoded, **read}

    def seen(self, sources: Sequence[ImageSource], views: Sequence[int]) -> dict[str, Tensor]:
        """Cached features of a view of each image, else pixels."""
        if self.features is not None:
            return {"features": self.features(sources, views)}
        return {"pixel_values": self.pixels(sources, views)}

    def read(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Q-Former inputs of each prompt; empty if it reads none."""
        if self.reader is None:
            return {}
        return self.reader.batch([self.reader.ids(prompt) for prompt in prompts])

    def pixels(self, sources: Sequence[ImageSource], views: Sequence[int] = ()) -> Tensor:
        """Decoded, resized and normalised images (I, 3, height, width), or a view of each."""
        seen = list(zip(sources, views or [0] * len(sources), strict=True))
        if self.cache is None:
            return self._read(seen)
        new = [(source, view) for source, view in seen if (source.name, view) not in self.cache]
        if new:
            names = [(source.name, view) for source, view in new]
            self.cache.update(zip(names, self._read(new), strict=True))
        return torch.stack([self.cache[source.name, view] for source, view in seen])

    def decode(self, source: ImageSource, view: int = 0) -> Image:
        """The image, or an augmented view, as upright RGB; raises as `decoding.decode`."""
        image = decode(source, max_pixels=self.max_image_pixels)
        if view == 0:
            return image
        assert self.augmentation is not None, "a view above 0 is an augmentation's"
        return self.augmentation(image, view)

    def resized(self, source: ImageSource, view: int = 0) -> Image:
        """As `decode`, at the image processor's size already, for `normalise`."""
        return resized(self.decode(source, view), self.image_processor)

    def normalise(self, images: Sequence[Image]) -> Tensor:
        """Resized and normalised images (I, 3, height, width)."""
        return self.image_processor(images=list(images), return_tensors="pt")["pixel_values"]

    def _read(self, seen: Sequence[tuple[ImageSource, int]]) -> Tensor:
        return self.normalise([self.resized(source, view) for source, view in seen])


def _encoder_batch(
    tokens: Sequence[TokenRow], image_index: Sequence[int], pad_id: int
) -> tuple[dict[str, Tensor], list[int], list[int]]:
    """The encoder's input, with encoder_index and encoder_rows also as lists.

    Rows of an image with the same prompt (captions) have one; questions have one each. Padded on
    the right: T5's positions are distances.
    """
    numbers: dict[tuple[int, tuple[int, ...]], int] = {}
    first: list[int] = []
    index: list[int] = []
    for place, (row, image) in enumerate(zip(tokens, image_index, strict=True)):
        prompt = image, row.ids[: row.target_start]
        if prompt not in numbers:
            numbers[prompt] = len(first)
            first.append(place)
        index.append(numbers[prompt])
    padded = pad_rows([ids for _, ids in numbers], pad_id)
    return (
        {
            **{f"encoder_{name}": tensor for name, tensor in padded.items()},
            "encoder_index": torch.tensor(index),
            "encoder_rows": torch.tensor(first),
        },
        index,
        first,
    )
