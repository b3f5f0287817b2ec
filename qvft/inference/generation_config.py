"""Validates decoding settings and builds a `GenerationConfig`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from transformers import GenerationConfig

from qvft.errors import RecipeError
from qvft.log import get_logger
from qvft.recipe.eval import Decode
from qvft.recipe.refused_settings import require_accepted
from qvft.recipe.schema import Recipe

logger = get_logger("qvft.generation")

_OF_IMAGE = "counts the image's tokens too"
# Why a field is refused, and what to use instead.
_REFUSED: dict[str, tuple[str, str | None]] = {
    "max_length": (_OF_IMAGE, "use max_new_tokens"),
    "min_length": (_OF_IMAGE, "use min_new_tokens"),
    "return_dict_in_generate": ("does not fit: what comes out is text", "leave it out"),
    "prompt_lookup_num_tokens": ("looks texts up in a prompt, which an image is not", None),
    **dict.fromkeys(
        ("eos_token_id", "pad_token_id", "bos_token_id"), ("is set by the prompt template", None)
    ),
}
_SEVERAL = "num_return_sequences"


def generation_fields(
    recipe: Recipe, fields: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """`GenerationConfig` fields for captions and for questions.

    Raises:
        RecipeError: an unknown field, one that counts the image's tokens, or a value or combination
            that transformers refuses.
    """
    over = dict(fields or {})
    settings = {
        "caption": {**_fields(recipe.eval.caption, "eval.caption", over), **over},
        "question": {**_fields(recipe.eval.answer, "eval.answer", over), **over},
    }
    for kind, values in settings.items():
        _require_valid(values, kind)
    return settings


def check_fields(fields: Mapping[str, Any], where: str) -> None:
    """Checks names of `GenerationConfig` fields.

    Args:
        where: prefix of a name in messages, e.g. `eval.caption.arguments.`.

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
                "is not a field of transformers.GenerationConfig",
                where=f"{where}{name}",
                do=f'did you mean "{near[0]}"?' if near else None,
            )


def _fields(decode: Decode, where: str, over: Mapping[str, Any]) -> dict[str, Any]:
    check_fields(decode.arguments, f"{where}.arguments.")
    if decode.arguments.get(_SEVERAL, 1) != 1:
        raise RecipeError(
            "does not fit: a text is scored alone",
            where=f"{where}.arguments.{_SEVERAL}",
            do="leave it out",
        )
    fields: dict[str, Any] = {
        "max_new_tokens": decode.max_new_tokens,
        "num_beams": decode.num_beams,
        "do_sample": False,
        **decode.arguments,
    }
    if over.get("num_beams", decode.num_beams) != 1:
        fields.setdefault("length_penalty", decode.length_penalty)
    return fields


def _require_valid(fields: Mapping[str, Any], kind: str) -> None:
    """Runs the checks of transformers that need no model, and names fields without effect."""
    for name in ("num_beams", "max_new_tokens"):
        value = fields.get(name, 1)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise RecipeError(f"{value}", where=name, expected="a whole number, 1 or more")
    if not isinstance(fields.get("do_sample", False), bool):
        raise RecipeError(f"{fields['do_sample']}", where="do_sample", expected="true or false")

    def attempt(some: Mapping[str, Any]) -> None:
        GenerationConfig(**some).validate()

    require_accepted(fields, attempt, key=lambda name: f"decoding {kind}s: {name}")
    try:
        GenerationConfig(**fields).validate(strict=True)
    except ValueError as error:
        logger.warning("decoding %ss: %s", kind, " ".join(str(error).split()))
