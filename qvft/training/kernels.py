"""Checks that this machine supports a recipe's torch.compile, FlexAttention and FSDP settings."""

from __future__ import annotations

from collections.abc import Sequence

from qvft.errors import RecipeError
from qvft.models.base_checkpoint import BaseCheckpoint
from qvft.models.decoders import is_encoder_decoder
from qvft.models.flex_attention import require_flex
from qvft.recipe.phases import PhasePlan
from qvft.recipe.schema import Recipe
from qvft.setup.model import device
from qvft.training.compiling import require_compiler


def require_shardable(recipe: Recipe, base: BaseCheckpoint) -> None:
    """Checks that the recipe's model and objectives can be trained under FSDP.

    Raises:
        RecipeError: an encoder-decoder, or custom objectives.
    """
    if is_encoder_decoder(base.config):
        raise RecipeError(
            f"a {base.config.text_config.model_type} decoder under FSDP, whose encoder would not "
            "be sharded",
            where="model.id",
            expected="a decoder-only model",
            do="use DDP (recipes/accelerate/ddp.yaml)",
        )
    if recipe.objectives.further:
        raise RecipeError(
            f"{', '.join(recipe.objectives.further)} under FSDP",
            where="objectives.custom",
            expected="none: weights are sharded within the objectives that qvft knows",
            do="use DDP (recipes/accelerate/ddp.yaml)",
        )


def require_kernels(recipe: Recipe, base: BaseCheckpoint, plans: Sequence[PhasePlan]) -> None:
    """Checks that what the recipe compiles can be compiled on this machine.

    Raises:
        RecipeError: it cannot.
    """
    if recipe.model.attn_implementation == "flex":
        require_flex(base.config, device())
    if any(plan.train.torch_compile for plan in plans):
        require_compiler(device())
