"""Opens the base checkpoint of a merge, lazily where possible."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
import transformers

from qvft.models.image_size import ResizedWeights, config_with_image_size
from qvft.models.question_aware.checkpoint import open_checkpoint
from qvft.models.reference_configs import meta_model
from qvft.setup.model import base_model, base_of
from qvft.weights.base_weights import stored_weights
from qvft.weights.merge_inputs import Ingredients


def base_weights(
    ingredients: Ingredients,
) -> tuple[transformers.PreTrainedModel, Mapping[str, torch.Tensor]]:
    """The unquantized base, and its stored weights by key.

    If one checkpoint has all of them under the model's names, the model is on the meta device and
    weights are read lazily. Other models are loaded in full: randomly initialised (`model.init:
    random`), made from a base and a text branch or from components, in QVision's published layout,
    reduced by `model.query_tokens`, or stored under names of another version of transformers.
    """
    recipe, base = ingredients.recipe, ingredients.base
    whole = not (base.graft or base.decoder or base.published or base.stored_queries)
    if whole and recipe.model.init != "random":
        config = copy.deepcopy(base.config)
        stored = base.stored_image_size
        outline = meta_model(config_with_image_size(config, stored) if stored else config)
        checkpoint = open_checkpoint(
            base.id, where="model.id", location=base.location, revision=base.revision
        )
        weights = stored_weights(checkpoint, outline)
        if weights is not None and stored:
            vision = config.vision_config
            side = vision.image_size // vision.patch_size
            return meta_model(config), ResizedWeights(weights, side)
        if weights is not None:
            return outline, weights
    loaded = base_model(
        recipe,
        base_of(recipe),
        quantized=False,
        dtype=ingredients.stored,
        place=torch.device("cpu"),
    ).model
    return loaded, loaded.state_dict()
