"""Builds the prompt template of a recipe and its base, and checks that rows fit the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qvft.data.collate import WIDTH_STEP
from qvft.data.prompt import PromptTemplate
from qvft.data.rows import Row
from qvft.errors import ModelError, RecipeError
from qvft.models.base_checkpoint import BaseCheckpoint
from qvft.models.decoders import longest_row, start_token
from qvft.recipe.schema import Recipe


def template_of(recipe: Recipe, base: BaseCheckpoint, processor: Any) -> PromptTemplate:
    """The prompt template for training, evaluation and inference.

    Raises:
        RecipeError: rows and texts do not fit the decoder's positions, or the chat template leaves
            no room for texts.
        ModelError: the tokenizer has no end-of-text token, or no chat template where one is wanted.
    """
    require_rows_to_fit(recipe, base)
    stop_text = base.family.stop_text(base.config)
    if not stop_text and processor.tokenizer.eos_token_id is None:
        key = "id" if recipe.model.decoder is None else "decoder"
        raise ModelError(
            "its tokenizer has no end-of-text token, which ends captions and answers",
            where=f"model.{key}={getattr(recipe.model, key)}",
            expected="an eos_token in tokenizer_config.json",
        )
    template = PromptTemplate(
        tokenizer=processor.tokenizer,
        num_query_tokens=image_tokens(base),
        image_token_id=base.config.image_token_index if base.family.image_tokens else None,
        stop_text=stop_text,
        caption=recipe.data.prompt.caption,
        question=recipe.data.prompt.question,
        max_text_tokens=recipe.data.max_text_tokens,
        text=recipe.data.text,
        marked=base.family.marked,
        chat_template=recipe.data.prompt.chat_template,
        start_id=start_token(base.config),
    )
    fixed = 0 if template.chat is None else sum(template.chat.fixed)
    if 3 * fixed > 2 * template.max_text_tokens:  # a third is left for texts
        raise RecipeError(
            f"{template.max_text_tokens}, of which the chat template takes {fixed}",
            where="data.max_text_tokens",
            expected=f"at least {-(-3 * fixed // 2)}",
        )
    return template


def image_tokens(base: BaseCheckpoint) -> int:
    """Number of image tokens in a row."""
    return base.config.num_query_tokens if base.family.image_tokens else 0


def require_rows_to_fit(recipe: Recipe, base: BaseCheckpoint) -> None:
    """`require_positions` for the longest texts that the recipe generates."""
    new = max(recipe.eval.caption.max_new_tokens, recipe.eval.answer.max_new_tokens)
    require_positions(recipe, base, new, where="data.max_text_tokens")


def require_positions(recipe: Recipe, base: BaseCheckpoint, new_tokens: int, *, where: str) -> None:
    """Checks that the longest row and what is generated after it fit the decoder's positions.

    Args:
        new_tokens: maximum new tokens.
        where: its recipe key.

    Raises:
        RecipeError: they do not; on a GPU the decoder would fail without a clear error.
    """
    # Packed rows have their own mask, in which every token sees all of its row.
    positions = longest_row(base.config, visual=base.family.image_tokens, padding=WIDTH_STEP - 1)
    before = image_tokens(base) + recipe.data.max_text_tokens
    if positions is not None and before + new_tokens > positions:
        raise RecipeError(
            f"{before + new_tokens} positions: {image_tokens(base)} for the image, "
            f"{recipe.data.max_text_tokens} for text, {new_tokens} for new tokens",
            where=where,
            expected=f"at most {positions}, which is all that the decoder sees",
            do="lower data.max_text_tokens or max_new_tokens",
        )


def require_candidates_fit(
    recipe: Recipe, base: BaseCheckpoint, template: PromptTemplate, rows: Sequence[Row]
) -> None:
    """`require_positions` for the longest candidate of the rows."""
    texts = list({text for row in rows for text in row.candidates})
    lengths = map(len, template.encode_targets("question", "", texts))
    # A first blank may be a token.
    require_positions(recipe, base, max(lengths, default=0) + 1, where="candidates")
