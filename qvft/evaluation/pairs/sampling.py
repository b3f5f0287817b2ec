"""Draws several texts per prompt from a model for `qvft pairs`, by any GenerationConfig fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from qvft.data.prompt import PromptTemplate
from qvft.data.rows import Row
from qvft.errors import RecipeError
from qvft.inference.generation_config import generation_fields
from qvft.inference.generation_trial import tried_fields
from qvft.inference.vision_language_model import VisionLanguageModel
from qvft.log import get_logger
from qvft.setup.feature_cache import with_features
from qvft.setup.model import base_of
from qvft.setup.resolve_model import ResolvedModel

logger = get_logger("qvft.pairs")


def sampled_texts(
    opened: ResolvedModel,
    rows: Sequence[Row],
    *,
    count: int,
    seed: int,
    fields: Mapping[str, Any],
    batch_size: int,
    workers: int,
) -> list[tuple[str, ...]]:
    """Up to `count` texts for each row; none for a row whose image is unusable.

    Each image is encoded once, or its features come from the cache (`data.features`). A text that
    reaches max_new_tokens is unfinished; it is left out, and a warning counts it, because training
    would end it there.

    Args:
        count: texts per row.
        seed: the same seed, rows and batch size give the same texts.
        fields: `GenerationConfig` fields; by default texts are drawn at temperature 1.
        batch_size: texts decoded together, at least `count`.
        workers: processes that decode images.

    Raises:
        UserError: the model does not fit, or a field's value is refused.
    """
    wanted = {"do_sample": True, "num_beams": 1, **fields, "num_return_sequences": count}
    for name, fits in (
        ("do_sample", wanted["do_sample"] is not False),
        ("num_beams", wanted["num_beams"] in (1, None) or wanted["num_beams"] >= count),
    ):
        if not fits:
            raise RecipeError(
                f"{wanted[name]} gives no {count} texts per row (--samples)",
                where=f"command line: --{name}",
                do="leave it out",
            )
    tried_fields(opened.recipe, base_of(opened.recipe), wanted)  # before the weights are loaded
    model = VisionLanguageModel(opened)
    samples = list({row.sample.id: row.sample for row in rows}.values())
    model.loaded = with_features(model.loaded, opened.recipe, samples)
    texts: list[tuple[str, ...]] = [()] * len(rows)
    torch.manual_seed(seed)
    limits = {
        kind: settings["max_new_tokens"]
        for kind, settings in generation_fields(opened.recipe, wanted).items()
    }
    unfinished = 0
    for outcome in model.outcomes(
        rows, wanted, batch_size=max(1, batch_size // count), workers=workers
    ):
        row = rows[outcome.number]
        lengths = _lengths(row, outcome.texts, model.loaded.template)
        texts[outcome.number] = tuple(
            text
            for text, length in zip(outcome.texts, lengths, strict=True)
            if length < limits[row.kind]
        )
        unfinished += len(outcome.texts) - len(texts[outcome.number])
    if unfinished:
        logger.warning(
            "%d of %d texts reach max_new_tokens, so they are unfinished and left out; raise it "
            "with --max_new_tokens",
            unfinished,
            count * len(rows),
        )
    return texts


def _lengths(row: Row, texts: Sequence[str], template: PromptTemplate) -> list[int]:
    """Tokens of each text, without the stop token."""
    rows = template.encode_all((row.kind, row.question, text) for text in texts)
    return [len(one.ids) - one.target_start - 1 + one.cut_target for one in rows]
