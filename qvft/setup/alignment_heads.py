"""Builds alignment heads, with their tokenizer, from a recipe or a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from transformers import Blip2Config

from qvft.adapters.checkpoint import Alignment, restore_alignment
from qvft.adapters.manifest import alignment_entry, read_manifest
from qvft.data.truncation import text_branch_warnings
from qvft.errors import ModelError, RecipeError
from qvft.models.alignment.heads import AlignmentHeads
from qvft.models.alignment.initial_weights import fresh_heads, heads_from_retrieval, text_config
from qvft.models.alignment.text_tokens import MAX_TOKENS, check_tokenizer
from qvft.models.base_checkpoint import BaseCheckpoint, find_checkpoint
from qvft.models.load import load_processor
from qvft.models.weight_files import weight_files
from qvft.recipe.phases import lora_of_phases, phase_plans
from qvft.recipe.schema import Recipe
from qvft.setup.model import Loaded


def truncation_warnings(branch: Alignment, captions: Sequence[str], *, name: str) -> list[str]:
    """Warnings about truncated captions of the split `name`."""
    warnings = text_branch_warnings(captions, branch.tokenizer, branch.max_text_tokens)
    return [f"{name}: {warning}" for warning in warnings]


def require_alignable(recipe: Recipe, base: BaseCheckpoint) -> None:
    """Raises RecipeError if there are alignment objectives and the family is not `blip2`, or ViT
    or Q-Former have LoRA.
    """
    asked = recipe.objectives.alignment
    found = lora_of_phases(phase_plans(recipe))
    with_lora = [] if found is None else [part for part in found[1] if part != "decoder"]
    if asked and with_lora:
        raise RecipeError(
            f"lora with {', '.join(asked)}",
            where=f"trainable.{with_lora[0]}",
            expected="full or frozen: a retrieval model is written without LoRA layers",
        )
    if asked and base.family.name != "blip2":
        raise RecipeError(
            f"{', '.join(asked)} with family {base.family.name}",
            where="objectives",
            expected="family blip2, whose Q-Former is free to read captions",
            do="leave lm alone, or take a model of family blip2",
        )


def new_branch(recipe: Recipe, loaded: Loaded) -> Alignment | None:
    """Initial alignment heads of a recipe; None for lm only.

    Raises:
        ModelError: the checkpoint of the text branch does not fit.
    """
    objectives = tuple(recipe.objectives.alignment)
    if not objectives:
        return None
    tokenizer, text_generation = _tokenizer(recipe, loaded), "itg" in objectives
    where = recipe.objectives.text_branch or recipe.model.id
    if recipe.objectives.text_branch is None:
        heads = fresh_heads(
            loaded.blip2,
            vocab_size=loaded.base.config.text_config.vocab_size,
            pad_id=tokenizer.pad_token_id,
            positions=MAX_TOKENS,
            seed=recipe.run.seed,
            text_generation=text_generation,
        )
    else:
        base = _checkpoint(recipe.objectives.text_branch)
        heads = heads_from_retrieval(
            loaded.blip2,
            config=cast(Blip2Config, base.config),
            files=weight_files(base),
            source=base.id,
            text_generation=text_generation,
            generation_start_id=generation_start(tokenizer),
        )
    check_tokenizer(tokenizer, vocab_size=heads.config.vocab_size, where=where)
    heads.train_only(objectives)
    longest = min(MAX_TOKENS, heads.config.max_position_embeddings)
    return Alignment(heads, objectives, where, longest, tokenizer)


def saved_branch(adapter: Path, recipe: Recipe, loaded: Loaded) -> Alignment:
    """Loads the heads of an adapter folder, in evaluation mode on the model's device.

    Raises:
        CheckpointError: it has none, or their file is damaged.
        ModelError: the checkpoint of their tokenizer is not found.
    """
    entry = alignment_entry(adapter, read_manifest(adapter))
    config = text_config(
        loaded.blip2,
        vocab_size=entry["vocab_size"],
        pad_id=entry["pad_id"],
        positions=entry["positions"],
    )
    with torch.random.fork_rng(devices=[]):
        heads = AlignmentHeads(
            config,
            embedding_width=entry["embedding_width"],
            text_generation=entry["text_generation"],
            generation_start_id=entry["generation_start_id"],
        )
    restore_alignment(adapter, heads)
    return Alignment(
        heads.to(loaded.model.device).eval(),
        tuple(entry["objectives"]),
        entry["tokenizer"],
        entry["max_text_tokens"],
        _tokenizer(recipe, loaded),
    )


def _tokenizer(recipe: Recipe, loaded: Loaded) -> Any:
    name = recipe.objectives.text_branch
    return (
        loaded.processor.tokenizer if name is None else load_processor(_checkpoint(name)).tokenizer
    )


def _checkpoint(name: str) -> BaseCheckpoint:
    """The checkpoint that initialises the text branch; raises ModelError if it is not found."""
    try:
        return find_checkpoint(name)
    except ModelError as error:
        key = f"objectives.text_branch={name}"
        raise ModelError(error.given, where=key, expected=error.expected, do=error.do) from error


def generation_start(tokenizer: Any) -> int | None:
    """Start token of ITG texts, instead of [CLS]: the tokenizer's begin-of-text token, [DEC] in
    BLIP-2. None keeps the tokenizer's first token.

    Source: LAVIS, lavis/models/blip2_models/blip2.py, `init_tokenizer`.
    """
    if tokenizer.bos_token_id is not None:
        return tokenizer.bos_token_id
    return tokenizer.get_vocab().get("[DEC]")
