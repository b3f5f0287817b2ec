"""Checks of a recipe that need only the file system, made before torch is imported.

Importing torch, transformers and peft takes seconds; a misspelt path is reported before.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qvft.checking.findings import RecipeFindings
from qvft.errors import ModelError, RecipeError, UserError
from qvft.models.model_path import FRESH, names_folder, require_folder
from qvft.recipe.phases import phase_plans, require_trainable_decoder
from qvft.recipe.schema import Recipe
from qvft.setup.data import Texts, listed
from qvft.setup.streaming import is_streamed, stream_of
from qvft.training.argument_names import refuse_arguments


def require_settings(recipe: Recipe) -> None:
    """Raises RecipeError for settings that need no library to be refused."""
    from qvft.evaluation.available_metrics import require_known_metrics  # predict needs no metric

    require_known_metrics(recipe.eval.metrics)
    quantized = recipe.model.quantization.scheme != "none"
    dropout = recipe.trainable.decoder_dropout
    for number, plan in enumerate(phase_plans(recipe)):
        if plan.trainable.decoder_dropout != dropout:
            raise RecipeError(
                f"{plan.trainable.decoder_dropout:g}, but all phases have the decoder's dropout of "
                f"the recipe, {dropout:g}",
                where=f"phases.{number}.trainable.decoder_dropout",
                do="set trainable.decoder_dropout",
            )
        require_trainable_decoder(plan.trainable, quantized=quantized)
        refuse_arguments(plan.train.model_dump())


def require_models(recipe: Recipe) -> None:
    """Raises ModelError unless the folders of base, decoder and text branches exist."""
    require_folder(recipe.model.id)
    named = {
        "model.decoder": recipe.model.decoder,
        "model.text_branch": recipe.model.text_branch,
        "objectives.text_branch": recipe.objectives.text_branch,
    }
    for key, name in named.items():
        if name not in (None, FRESH) and names_folder(name) and not Path(name).exists():
            raise ModelError("no such folder", where=f"{key}={name}")


def texts_of(recipe: Recipe, which: Sequence[str]) -> Texts:
    """The named data of a recipe, with unchecked images; a stream is opened, not read."""
    found = {}
    for name in which:
        if is_streamed(recipe, name):
            stream_of(recipe)
        else:
            found[name] = listed(recipe, name)
    return found


def require_retention_texts(recipe: Recipe) -> None:
    """Raises RecipeError if the data of `eval.retention`, needed at a run's end, cannot be read."""
    for number, source in enumerate(recipe.eval.retention):
        data = recipe.data.model_copy(update={"eval": source})
        try:
            listed(recipe.model_copy(update={"data": data}), "eval")
        except UserError as error:
            raise RecipeError(f"{error}", where=f"eval.retention.{number}") from error


def training_texts(recipe: Recipe) -> Texts:
    """Training data, and evaluation data if training evaluates."""
    watched = any(plan.train.eval_steps is not None for plan in phase_plans(recipe))
    return texts_of(recipe, ("train", "eval") if watched else ("train",))


def recipe_findings(recipe: Recipe) -> RecipeFindings:
    """Summary of a recipe."""
    trains = [plan.train for plan in phase_plans(recipe)]
    return RecipeFindings(
        name=recipe.name,
        model=recipe.model.id,
        run_dir=recipe.run_dir,
        quantize=recipe.model.quantization.scheme,
        phases=tuple(plan.phase.name for plan in phase_plans(recipe)),
        rows_per_step=tuple(
            None
            if train.batch_tokens
            else train.per_device_train_batch_size * train.gradient_accumulation_steps
            for train in trains
        ),
        tokens_per_step=tuple(
            train.batch_tokens * train.gradient_accumulation_steps if train.batch_tokens else None
            for train in trains
        ),
        started_from=recipe.train.from_,
    )
