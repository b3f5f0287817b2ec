"""Learning rates by the size of the base, where a recipe sets none."""

from __future__ import annotations

from qvft.log import get_logger
from qvft.models.base_checkpoint import BaseCheckpoint
from qvft.models.reference_configs import meta_model
from qvft.recipe.schema import Recipe
from qvft.recipe.train import LearningRates

logger = get_logger("qvft.train")

TABLE: tuple[tuple[float, LearningRates, str], ...] = (
    (50e6, LearningRates(**dict.fromkeys(LearningRates.model_fields, 1e-3)), "docs/tuning.md"),
    (
        1e9,
        LearningRates(qformer=5e-5, query_tokens=1e-4, language_projection=2e-4, adapters=5e-4),
        "docs/real_parts.md",
    ),
    (
        float("inf"),
        LearningRates(adapters=2e-4),
        "BLIP-2's fine-tuning, arXiv 2301.12597, appendix; adapters: QLoRA, arXiv 2305.14314",
    ),
)
"""Weights of a base up to which rates hold, the rates, and where they are from."""


def with_rates(recipe: Recipe, base: BaseCheckpoint) -> Recipe:
    """The recipe with the learning rates of `TABLE`, if it needs any that it does not set."""
    own = [phase.train.get("learning_rate") is not None for phase in recipe.phases]
    if recipe.train.learning_rate is not None or (own and all(own)):
        return recipe
    weights = sum(one.numel() for one in meta_model(base.config).parameters())
    rates, source = next((rates, why) for most, rates, why in TABLE if weights <= most)
    rising = sorted(rates.model_dump().items(), key=lambda item: item[1])
    shown = ", ".join(f"{name} {rate:g}" for name, rate in rising)
    logger.info(
        "train.learning_rate is not set; for a base of %.3g M weights: %s (%s)",
        weights / 1e6,
        f"{rising[0][1]:g} for all" if len({rate for _, rate in rising}) == 1 else shown,
        source,
    )
    train = recipe.train.model_copy(update={"learning_rate": rates})
    return recipe.model_copy(update={"train": train})
