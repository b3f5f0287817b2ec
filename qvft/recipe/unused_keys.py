"""Recipe keys without effect: settings of a feature that is off.

On the command line such a key is an error. In a file it is only a warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from qvft.errors import RecipeError
from qvft.recipe.keys_by_program import covers
from qvft.recipe.section import fields_by_key, leaves

if TYPE_CHECKING:
    from qvft.recipe.reward import Reward
    from qvft.recipe.schema import Recipe
    from qvft.recipe.train import Train
    from qvft.recipe.trainable import Trainable

_RATES = ("vision", "qformer", "query_tokens", "language_projection", "decoder")


def named_in_file(recipe: Recipe, idle: Mapping[str, str]) -> list[str]:
    """Warnings for those of `idle` that a recipe sets to another value than the default.

    Learning rates of frozen components are ignored: recipes list the rates of all groups.
    """
    return [
        f"{key} has no effect: {reason}"
        for section, reason in idle.items()
        for key, value, default in _leaves(recipe)
        if covers(section, key) and value != default and not key.startswith("train.learning_rate.")
    ]


def refuse_idle(recipe: Recipe, idle: Mapping[str, str], overrides: Iterable[str]) -> None:
    """Raises RecipeError for an override without effect; the message says what switches it off."""
    values = {key: (value, default) for key, value, default in _leaves(recipe)}
    for override in overrides:
        name = override.partition("=")[0].strip()
        keys = [key for key in values if covers(name, key)]
        reasons = [
            next((reason for one, reason in idle.items() if covers(one, key)), None) for key in keys
        ]
        changed = any(values[key][0] != values[key][1] for key in keys)
        if changed and None not in reasons:
            raise RecipeError(
                f"would have no effect: {reasons[0]}",
                where=f"command line: {name}",
                do="remove it, or change that",
            )


def idle_sections(
    recipe: Recipe, phases: Sequence[tuple[Trainable, Train]]
) -> Iterator[tuple[str, str]]:
    """Keys and sections without effect, with the reason; `phases` are the sections of each."""
    model, data = recipe.model, recipe.data
    if not model.quantization.load_in_4bit:
        for key in ("bnb_4bit_quant_type", "bnb_4bit_use_double_quant"):
            yield f"model.quantization.{key}", "model.quantization.load_in_4bit is false"
    if model.revision is not None and Path(model.id).is_dir():
        yield "model.revision", "model.id is a folder, which has no revisions"
    if model.decoder is None:
        yield "model.decoder_revision", "model.decoder is not set"
    weighted = any(source.weight is not None for _, source in data.sources("train"))
    if not data.lists("train"):
        for key in ("train.weight", "mixing_temperature", "stopping_strategy"):
            yield f"data.{key}", "data.train is not a list of sources"
    elif data.mixing_temperature is None and not weighted:
        yield "data.stopping_strategy", "sources are mixed in proportion to their size"
    if not any(source.stream for _, source in data.sources("train")):
        yield "data.train.shuffle_buffer", "data.train.stream is false"
    if not data.augmentations_per_image:
        yield "data.augment", "data.augmentations_per_image is 0"
    if data.features == "off":
        for key in ("features_dtype", "features_limit_gb"):
            yield f"data.{key}", "data.features is off"
    sections = [trainable for trainable, _ in phases]
    if not any(trainable.lora_parts for trainable in sections):
        for key in ("trainable.lora", "train.learning_rate.adapters"):
            yield key, "no component of trainable is lora"
    elif all(trainable.decoder != "lora" for trainable in sections):
        yield "trainable.lora.target_modules", "trainable.decoder is not lora"
    if all(trainable.decoder != "full" for trainable in sections):
        yield "trainable.frozen_decoder_fraction", "trainable.decoder is not full"
    for part in _RATES:
        modes = {getattr(trainable, part) for trainable in sections}
        if "full" not in modes and not recipe.objectives.alignment:
            yield f"train.learning_rate.{part}", f"trainable.{part} is not full"
    if not recipe.objectives.alignment:
        if not recipe.objectives.further:
            yield "train.learning_rate.heads", "no objective has heads"
        yield "eval.rerank", "objectives.itm is 0"
        yield "eval.classes", "objectives.itc is 0"
    if not recipe.eval.classes:
        yield "eval.class_prompts", "eval.classes is empty"
    yield from _of_other_objectives(recipe)
    if all(train.eval_steps is None for _, train in phases):
        for key in ("eval_limit", "eval_completions"):
            yield f"train.{key}", "train.eval_steps is not set"
    if all(train.spike.policy == "off" for _, train in phases):
        yield "train.spike", "train.spike.policy is off"
    yield from _set_by_phases(recipe)


def _of_other_objectives(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Sections and keys of an objective or a loss that no phase has."""
    objectives = {phase.objective for phase in recipe.phases} or {"language"}
    if "language" not in objectives:
        yield "objectives", "no phase has objective: language"
    if objectives == {"reward"}:
        yield "train.metric_for_best_model", "reward.metric chooses the checkpoint"
    if "reward" not in objectives:
        yield "reward", "no phase has objective: reward"
    else:
        yield from _of_rewards(recipe.reward)
    if "preference" not in objectives:
        yield "preference", "no phase has objective: preference"
        return
    preference = recipe.preference
    if not {"robust", "exo_pair"} & set(preference.loss_type):
        yield "preference.label_smoothing", "preference.loss_type is neither robust nor exo_pair"
    if "discopop" not in preference.loss_type:
        yield "preference.discopop_tau", "preference.loss_type is not discopop"
    if preference.f_divergence_type != "alpha_divergence":
        yield "preference.f_alpha_divergence_coef", "preference.f_divergence_type is another"


def _of_rewards(reward: Reward) -> Iterator[tuple[str, str]]:
    if reward.num_iterations == 1:
        for key in ("epsilon", "epsilon_high"):
            yield f"reward.{key}", "reward.num_iterations is 1, so no ratio is clipped"
    if not {"cider", "bleu4"} & set(reward.scored):
        yield "reward.stop_token", "reward.funcs has neither cider nor bleu4"


def _set_by_phases(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Keys of `trainable` and `train` that every phase sets for itself."""
    for section in ("trainable", "train"):
        own = [
            {key for key, value in leaves(getattr(phase, section), section) if value != {}}
            for phase in recipe.phases
        ]
        for key in sorted(set.intersection(*own)) if own else ():
            yield key, f"every phase sets it, as in phases.0.{key}"


def _leaves(section: BaseModel, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(key path, value, default) of every key that is not a section, except phases."""
    fields = fields_by_key(type(section)).items()
    for (name, field), (_, value) in zip(fields, section, strict=True):
        key = f"{path}.{name}" if path else name
        if isinstance(value, BaseModel):
            yield from _leaves(value, key)
        elif key != "phases":
            yield key, value, field.get_default(call_default_factory=True)
