"""Q-Former tokenizer: the text source's, with BLIP-2's `[DEC]`."""

from __future__ import annotations

from typing import Any

from transformers import AutoTokenizer

from qvft.errors import ModelError
from qvft.models.checkpoint_files import load_part
from qvft.models.checkpoint_tensors import Checkpoint

DECODE_TOKEN = "[DEC]"
"""Added by BLIP-2 to BERT's vocabulary as id 30522: the start token of ITG texts. Questions begin
with `[CLS]` and do not contain it, but its embedding is BLIP-2's.
Source: LAVIS, lavis/models/blip2_models/blip2.py, `init_tokenizer`."""

_PADDED_ROWS = 127
"""Maximum number of embedding rows beyond the tokenizer: vocabularies are padded to multiples of
128."""


def question_tokenizer(text: Checkpoint, *, word_rows: int, positions: int) -> Any:
    """The tokenizer of a text source; `[DEC]` is added if it has no such token.

    Added tokens (`<image>`, `[DEC]`) may exceed the rows and get initialised ones; words may not.

    Raises:
        ModelError: it has no tokenizer, one that does not belong to its rows, or no pad token.
    """
    tokenizer = load_part(
        AutoTokenizer,
        text.location,
        where=f"model.text_branch={text.id}",
        expected="a checkpoint with its tokenizer",
        revision=text.revision,
        trust_remote_code=False,
    )
    ids = highest_id(tokenizer) + 1
    added = tokenizer.get_added_vocab()
    without_row = [
        token
        for token, number in tokenizer.get_vocab().items()
        if number >= word_rows and token not in added
    ]
    if without_row or ids < word_rows - _PADDED_ROWS:
        raise ModelError(
            f"its tokenizer has {ids} tokens, its word embedding {word_rows} rows",
            where=f"model.text_branch={text.id}",
            expected="the tokenizer that the checkpoint was trained with",
        )
    return prepare_tokenizer(tokenizer, positions=positions)


def prepare_tokenizer(tokenizer: Any, *, positions: int) -> Any:
    """Prepares a tokenizer for questions, in place; returns it. Raises ModelError."""
    if tokenizer.pad_token_id is None:
        raise ModelError("the Q-Former's tokenizer has no pad token", where="model.text_branch")
    if tokenizer.bos_token is None:
        tokenizer.add_special_tokens({"bos_token": DECODE_TOKEN})
    tokenizer.model_max_length = positions
    return tokenizer


def require_image_token(processor: Any, image_token: int | None, *, where: str) -> None:
    """Raises ModelError unless a processor's `<image>` is the model's."""
    token_id = processor.tokenizer.convert_tokens_to_ids("<image>")
    if token_id != image_token:
        raise ModelError(
            f"the tokenizer's <image> is {token_id}, the model's {image_token}",
            where=where,
            do="use the processor that belongs to the checkpoint",
        )


def highest_id(tokenizer: Any) -> int:
    """Highest token id of a tokenizer, added tokens included."""
    return max(tokenizer.get_vocab().values())
