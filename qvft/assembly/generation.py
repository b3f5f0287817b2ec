"""From decoding settings to checked `GenerationConfig` fields."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from transformers import GenerationConfig

from qvft.errors import RecipeError
from qvft.recipe.schema import Decode, Recipe

_TEMPLATE = "is set by the prompt template"
_ONE_TEXT = "does not fit: a row gets one text, and nothing beside it"
# Why a field is refused, and what to use instead.
_REFUSED: dict[str, tuple[str, str | None]] = {
    "max_length": ("counts the image's tokens too", "use max_new_tokens"),
    "min_length": ("counts the image's tokens too", "use min_new_tokens"),
    "eos_token_id": (_TEMPLATE, None),
    "pad_token_id": (_TEMPLATE, None),
    "bos_token_id": (_TEMPLATE, None),
    "num_return_sequences": (_ONE_TEXT, "leave it out"),
    "return_dict_in_generate": (_ONE_TEXT, "leave it out"),
}


def generation_fields(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """`GenerationConfig` fields by kind of text.

    Raises:
        RecipeError: an unknown field, or one that counts the image's tokens.
    """
    return {
        "caption": _fields(recipe.eval.caption, "eval.caption"),
        "question": _fields(recipe.eval.answer, "eval.answer"),
    }


def check_fields(fields: Mapping[str, Any], where: str) -> None:
    """Checks names of `GenerationConfig` fields.

    Args:
        where: what stands in front of a name, e.g. `eval.caption.arguments.`.

    Raises:
        RecipeError: an unknown field, one that counts the image's tokens, or one that qvft sets.
    """
    known = set(GenerationConfig().to_dict()) | {"do_sample", "min_new_tokens", "max_new_tokens"}
    for name in fields:
        if name in _REFUSED:
            reason, instead = _REFUSED[name]
            raise RecipeError(reason, where=f"{where}{name}", do=instead)
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise RecipeError(
                "is no field of transformers.GenerationConfig",
                where=f"{where}{name}",
                do=f'did you mean "{near[0]}"?' if near else None,
            )


def _fields(decode: Decode, where: str) -> dict[str, Any]:
    check_fields(decode.arguments, f"{where}.arguments.")
    fields: dict[str, Any] = {
        "max_new_tokens": decode.max_new_tokens,
        "num_beams": decode.num_beams,
        "do_sample": False,
        **decode.arguments,
    }
    if decode.num_beams > 1:
        fields.setdefault("length_penalty", decode.length_penalty)
    return fields
