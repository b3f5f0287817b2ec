"""Tries decoding settings on the bundled tiny model before a large one is loaded."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers
from PIL import Image

from qvft.data.prompt import Kind
from qvft.data.rows import Row
from qvft.data.sample import ImageInMemory, Sample
from qvft.errors import RecipeError
from qvft.inference.generation_config import generation_fields
from qvft.inference.predict import predict_texts
from qvft.models.base_checkpoint import TINY_ID, BaseCheckpoint
from qvft.recipe.eval import Decode
from qvft.recipe.load import parse_recipe
from qvft.recipe.refused_settings import require_accepted
from qvft.recipe.schema import Recipe
from qvft.setup.model import base_model, base_of
from qvft.setup.prompt_template import require_positions

_UNTRIED = {"max_new_tokens", "num_beams", "do_sample", "length_penalty"}
"""Fields whose values are checked without a model, so they need no trial."""
_NEW_TOKENS = 4


def tried_fields(
    recipe: Recipe,
    base: BaseCheckpoint,
    fields: Mapping[str, Any] | None = None,
    *,
    where: str = "command line: --",
    proven: bool = False,
) -> dict[str, dict[str, Any]]:
    """`generation_fields`, checked against the model's positions and with a trial of `generate`.

    Args:
        recipe, fields: as in `generation_fields`.
        base: the model for inference; only its configuration is used.
        proven: the recipe's own fields are those that a run or merged model was proven with, so
            only `fields` need a trial.
        where: prefix of names of `fields` in messages.

    Raises:
        RecipeError: transformers refuses a field, or fails because of it; the message names it.
    """
    over = dict(fields or {})
    settings = generation_fields(recipe, over)
    sections: tuple[tuple[Kind, Decode, str], ...] = (
        ("caption", recipe.eval.caption, "eval.caption"),
        ("question", recipe.eval.answer, "eval.answer"),
    )
    for kind, decode, section in sections:
        key = _key(decode, section, over, where)
        require_positions(
            recipe, base, settings[kind]["max_new_tokens"], where=key("max_new_tokens")
        )
        given = {**decode.arguments, **over}
        if (over if proven else given).keys() - _UNTRIED:
            _try(kind, settings[kind], given, key)
    return settings


def _key(decode: Decode, section: str, over: Mapping[str, Any], where: str) -> Callable[[str], str]:
    def key(name: str) -> str:
        if name in over:
            return f"{where}{name}"
        further = "arguments." if name in decode.arguments else ""
        return f"{section}.{further}{name}"

    return key


def _try(
    kind: Kind, settings: Mapping[str, Any], given: Mapping[str, Any], key: Callable[[str], str]
) -> None:
    """Runs the tiny model twice on one image with the settings, and if it fails with fewer."""
    recipe = parse_recipe({"name": "trial", "model": {"id": TINY_ID, "dtype": "float32"}})
    loaded = base_model(recipe, base_of(recipe))
    sample = Sample("", ImageInMemory(Image.new("RGB", (8, 8))))
    texts = (None, None) if kind == "caption" else ("What is this?", "Which colour is it?")
    rows = [Row("", sample, kind, text, "", (), {}) for text in texts]
    own = {name: value for name, value in settings.items() if name not in given}

    def attempt(some: Mapping[str, Any]) -> None:
        generation = {kind: {**own, **some, "max_new_tokens": _NEW_TOKENS}}
        try:
            predict_texts(
                loaded.model, loaded.collator, rows, generation=generation, batch_size=2, workers=0
            )
        except RecipeError as error:  # the user's spelling of the field is unknown here
            raise error.__cause__ or error from None

    level = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity(logging.CRITICAL)
    try:
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            require_accepted(given, attempt, key=key)
    finally:
        transformers.utils.logging.set_verbosity(level)
