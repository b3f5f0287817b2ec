"""Language and alignment losses (ITC, ITM, ITG) from one forward pass of ViT and Q-Former.

Shape letters: I images, B rows, N pairs of an image and a caption, L row length, T text tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import Blip2ForConditionalGeneration

from qvft.data.collate import Collator
from qvft.data.rows import FILLER, Row
from qvft.models.alignment.heads import AlignmentHeads
from qvft.models.alignment.pairs import Pairs
from qvft.models.alignment.text_tokens import encode_texts
from qvft.models.blip2 import language_prefix, query_states
from qvft.models.supervised_tokens import supervised_tokens
from qvft.training.objectives.alignment_losses import (
    OBJECTIVES,
    LossSum,
    alignment_losses,
    item_counts,
)
from qvft.training.objectives.custom import CustomLoss
from qvft.training.objectives.language import language_outputs, vision_features
from qvft.training.objectives.weighted import LANGUAGE, WeightedObjective

PAIR_KEYS = ("image_ids", "pair_images", "text_ids", "text_mask")


class AlignmentObjective(WeightedObjective):
    """Weighted sum of the language loss and the alignment losses (ITC, ITM, ITG)."""

    model: Blip2ForConditionalGeneration

    def __init__(
        self,
        model: Blip2ForConditionalGeneration,
        heads: AlignmentHeads | None,
        *,
        weights: Mapping[str, float],
        seed: int,
        custom: Mapping[str, CustomLoss] | None = None,
    ) -> None:
        super().__init__(model)
        self.heads = heads
        self.custom = nn.ModuleDict(custom)
        self.weights, self.seed = dict(weights), seed
        self.aligned = [name for name in self.weights if name in OBJECTIVES]

    def trained_heads(self) -> list[nn.Module]:
        return [self.custom] if self.heads is None else [self.heads, self.custom]

    @property
    def adds_over_rows(self) -> bool:
        """Whether a batch's loss sums are the sums of its parts: not if negatives come from the
        batch.
        """
        return not {"itc", "itm"} & self.weights.keys() and not self.custom

    def forward(
        self,
        *,
        image_index: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        image_ids: Tensor | None = None,
        pair_images: Tensor | None = None,
        text_ids: Tensor | None = None,
        text_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        features: Tensor | None = None,
        **further: Tensor,
    ) -> dict[str, Any]:
        """Losses of a batch of `AlignmentCollator`; `further` has packing and the tensors of custom
        objectives.

        Returns:
            In training mode `losses`: (sum (), count ()) per objective name. In evaluation mode the
            output of `LanguageModelling`: the language loss alone, which does not depend on the
            rest of the batch.
        """
        features = vision_features(self.model, pixel_values, features)
        states = query_states(self.model, features)
        losses: dict[str, LossSum] = {}
        if not self.training or LANGUAGE in self.weights:
            tokens = supervised_tokens(
                self.model,
                {"input_ids": input_ids, **further},
                images=language_prefix(self.model, states),
                image_index=image_index,
                attention_mask=attention_mask,
                labels=labels,
            )
            language = language_outputs(tokens)
            if not self.training:
                return language
            losses[LANGUAGE] = LossSum(language["loss_sum"], language["count"])
        if self.heads is not None:
            assert image_ids is not None and pair_images is not None
            assert text_ids is not None and text_mask is not None
            losses |= alignment_losses(
                self.model,
                self.heads,
                Pairs(image_ids, pair_images, text_ids, text_mask),
                features=features,
                states=states,
                objectives=self.aligned,
                seed=self.seed,
            )
        batch = {
            "image_index": image_index,
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "labels": labels,
            **further,
        }
        for name, loss in self.custom.items():
            losses[name] = loss(self.model, batch, features=features, states=states)
        return {"losses": losses}

    def counts(self, batches: Sequence[Mapping[str, Tensor]]) -> dict[str, int]:
        """Number of items per alignment objective in these batches of this process."""
        total = {name: 0 for name in self.weights if name != LANGUAGE}
        for batch in batches:
            if self.heads is not None:
                pairs = Pairs(*(batch[key] for key in PAIR_KEYS))
                for name, count in item_counts(pairs, self.aligned).items():
                    total[name] += count
            for name, loss in self.custom.items():
                total[name] += cast(CustomLoss, loss).count_items(batch)
        return total


class AlignmentCollator:
    """Adds the captions, tokenized for the Q-Former's text branch, to a language batch.

    Questions do not describe their image and are not used for alignment.

    Returns of a call: what `collator` returns, and image_ids (I,) long, the same number for the
    same image in every process; pair_images (N,) long: the image of each caption; text_ids,
    text_mask (N, T) long.
    """

    def __init__(self, collator: Collator, tokenizer: Any, *, max_text_tokens: int) -> None:
        self.collator, self.tokenizer = collator, tokenizer
        self.max_text_tokens = max_text_tokens

    def __call__(self, rows: Sequence[tuple[int, Row]]) -> dict[str, Any]:
        batch = self.collator(rows)
        samples: dict[int, str] = {}
        for place, (_, row) in zip(batch["image_index"].tolist(), rows, strict=True):
            samples[place] = row.sample.id
        captions = [
            place
            for place, (number, row) in enumerate(rows)
            if row.kind == "caption" and number != FILLER
        ]
        template = self.collator.template
        texts = [template.cleaned("caption", rows[place][1].target) for place in captions]
        empty = torch.zeros(0, 1, dtype=torch.long)
        text_ids, text_mask = empty, empty
        if texts:
            text_ids, text_mask = encode_texts(
                self.tokenizer, texts, max_tokens=self.max_text_tokens
            )
        return {
            **batch,
            "image_ids": torch.tensor([image_id(samples[place]) for place in sorted(samples)]),
            "pair_images": batch["image_index"][torch.tensor(captions, dtype=torch.long)],
            "text_ids": text_ids,
            "text_mask": text_mask,
        }


def image_id(sample_id: str) -> int:
    """63 bits of the id's SHA-256, since Python's hash differs between processes."""
    return int.from_bytes(hashlib.sha256(sample_id.encode()).digest()[:8], "big") >> 1
