"""Loads the trained weights of the run that a recipe starts from (`train.from`) into its model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import nn
from transformers import PretrainedConfig

from qvft.adapters.checkpoint import (
    Alignment,
    check_base,
    restore_alignment,
    restore_checkpoint,
    restore_objectives,
)
from qvft.adapters.lora import load_lora
from qvft.adapters.targets import lora_layers
from qvft.errors import CheckpointError, ModelError, RecipeError
from qvft.log import get_logger
from qvft.models.base_checkpoint import BaseCheckpoint
from qvft.models.families import family_of
from qvft.models.reference_configs import meta_model
from qvft.recipe.phases import PhasePlan, lora_of_phases
from qvft.recipe.schema import Recipe
from qvft.setup.model import Loaded
from qvft.setup.provenance import base_hash
from qvft.setup.start_run import StartRun

logger = get_logger("qvft.train")


def require_same_base(start: StartRun, recipe: Recipe, base: BaseCheckpoint) -> None:
    """Checks that a run was trained on the recipe's base.

    Raises:
        CheckpointError: it was trained on other weights.
    """
    try:
        check_base(start.manifest, base_id=base.id, weights_sha256=base_hash(recipe, base))
    except CheckpointError as error:
        drawn = recipe.model.init == "random" or base.graft is not None or base.decoder is not None
        raise CheckpointError(
            error.given,
            where=f"{start.key}, model.id",
            expected=error.expected,
            do="set run.seed as there: it draws weights of the base" if drawn else None,
        ) from error


def require_places(start: StartRun, config: PretrainedConfig, plans: Sequence[PhasePlan]) -> None:
    """Checks on the meta device that every weight of a run has its place in the model.

    Raises:
        RecipeError: a weight has another shape, or the LoRA layers are others.
    """
    family, model = family_of(config.model_type), meta_model(config)
    shapes = {name: list(weight.shape) for name, weight in model.named_parameters()}
    for name, entry in start.manifest["bridge"].items():
        if shapes.get(name) != entry["shape"]:
            raise RecipeError(
                f"its {name} has shape {entry['shape']}",
                where=start.key,
                expected=f"{shapes.get(name, 'no such weight')}, as in this model",
                do="take model.query_tokens, model.image_size and model.decoder from its recipe",
            )
    found = lora_of_phases(plans)
    if not start.lora:
        return
    stored = start.lora_layers
    if found is None:
        made = {name for name, _ in model.named_modules() if name in stored}
    else:
        made = set(lora_layers(model, family, found[1], found[0].lora.target_modules))
    if made != stored:
        differing = sorted(made ^ stored)
        raise RecipeError(
            f"{len(made)} layers, with {differing[0]} on one side only",
            where="trainable.lora.target_modules",
            expected=f"the {len(stored)} layers of {start.key}",
        )


def load_start(start: StartRun, loaded: Loaded) -> Loaded:
    """The model with a run's trained weights, in place; LoRA layers of its own are kept frozen if
    the recipe adds none.

    Raises:
        CheckpointError: a file is damaged or does not fit.
    """
    if start.lora and loaded.handle is None:
        loaded = replace(loaded, handle=load_lora(loaded.model, start.folder))
        for name, module in loaded.model.named_modules():
            if ".lora_dropout." in name and isinstance(module, nn.Dropout):
                module.p = 0.0  # these layers are frozen
    for name, parameter in loaded.model.named_parameters():
        if name in start.manifest["bridge"]:
            parameter.data = parameter.data.float()  # as they were trained
    restore_checkpoint(start.folder, loaded.model, loaded.handle if start.lora else None)
    logger.info(
        "starts from %s: %d weights trained in full, LoRA %s",
        start.folder,
        len(start.manifest["bridge"]),
        "loaded" if start.lora else "none",
    )
    return loaded


def load_start_heads(
    start: StartRun, branch: Alignment | None, custom: Mapping[str, nn.Module]
) -> None:
    """Loads a run's alignment heads and weights of custom objectives, if both sides have some.

    Raises:
        RecipeError: they do not fit those of the recipe.
        CheckpointError: a file is damaged.
    """
    if branch is not None and "alignment" in start.manifest:
        try:
            restore_alignment(start.folder, branch.heads)
        except ModelError as error:
            raise RecipeError(
                f"the alignment heads do not fit: {error.given}",
                where=start.key,
                expected="the objectives and objectives.text_branch that it was trained with",
            ) from error
    if custom and start.manifest.get("objectives"):
        restore_objectives(start.folder, custom)
