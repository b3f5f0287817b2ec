"""Refuses recipe settings that a model with an encoder-decoder (T5) does not support."""

from __future__ import annotations

from typing import Any

from qvft.errors import RecipeError
from qvft.models.decoders import is_encoder_decoder
from qvft.recipe.phases import phase_plans
from qvft.recipe.schema import Recipe


def require_supported_settings(recipe: Recipe, config: Any) -> None:
    """Checks the settings that an encoder-decoder does not support.

    Raises:
        RecipeError: weights in float16, or a share of blocks to freeze.
    """
    if not is_encoder_decoder(config):
        return
    kind = config.text_config.model_type
    if recipe.model.dtype == "float16":
        raise RecipeError(
            f"float16 with a {kind} decoder, whose values overflow in it",
            where="model.dtype",
            expected="auto, bfloat16 or float32",
        )
    for plan in phase_plans(recipe):
        share = plan.trainable.frozen_decoder_fraction
        if share:
            raise RecipeError(
                f"{share} with a {kind} decoder, which has an encoder too",
                where="trainable.frozen_decoder_fraction",
                expected="0",
                do="train LoRA layers instead",
            )
