"""Recipe keys that do not work with preference phases or reward phases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def require_objectives(recipe: Any) -> None:
    """Checks that a recipe's phases can have their objectives.

    Args:
        recipe: a `schema.Recipe`, which is made of what this file checks.

    Raises:
        ValueError: they cannot; pydantic makes an error of it.
    """
    by_objective: dict[str, list[Any]] = {}
    for phase in recipe.phases:
        by_objective.setdefault(phase.objective, []).append(phase)
    if "preference" in by_objective:
        _require_pairs(recipe)
    if "reward" in by_objective:
        _require_samples(recipe, by_objective["reward"])


def _require_pairs(recipe: Any) -> None:
    """Raises ValueError for what does not work with reference log-probabilities of pairs."""
    dropout = recipe.trainable.decoder_dropout
    if any(source.stream for _, source in recipe.data.sources("train")):
        raise ValueError(
            "data.train.stream: true, and a preference phase computes the reference "
            "log-probabilities of all pairs before step 1; set false"
        )
    if dropout > 0:
        raise ValueError(
            f"trainable.decoder_dropout: {dropout:g}, and a preference phase has no dropout, by "
            "which model and reference would differ; set 0"
        )


def _require_samples(recipe: Any, phases: Sequence[Any]) -> None:
    """Raises ValueError for what does not work with samples of the model's own."""
    if not recipe.reward.funcs:
        raise ValueError("reward.funcs is empty; expected a reward function, e.g. {cider: 1.0}")
    if any(source.stream for _, source in recipe.data.sources("train")):
        raise ValueError(
            "data.train.stream: reward needs the references of all images, for the document "
            "frequencies of cider; remove it"
        )
    if recipe.model.attn_implementation == "flex":
        raise ValueError(
            "model.attn_implementation: flex trains the decoder only, and a reward phase samples "
            "from it; set sdpa"
        )
    for phase in phases:
        where = f"phases.{phase.name}.train"
        train = {**recipe.train.model_dump(), **phase.train}
        if train["batch_tokens"] is not None:
            raise ValueError(
                f"{where}.batch_tokens counts tokens of known texts, and samples are not known "
                "yet; set per_device_train_batch_size"
            )
        if train["torch_compile"]:
            raise ValueError(
                f"{where}.torch_compile compiles blocks for training, and every length of a sample "
                "would be compiled again; set false"
            )
        if {**recipe.train.spike.model_dump(), **phase.train.get("spike", {})}["policy"] != "off":
            raise ValueError(
                f"{where}.spike.policy compares losses, and a reward's are around 0; set off"
            )
        updates = recipe.reward.num_iterations
        for key in ("save_steps", "eval_steps"):
            if train[key] is not None and train[key] % updates:
                raise ValueError(
                    f"{where}.{key} is {train[key]}; expected a multiple of reward.num_iterations, "
                    f"{updates}: between its steps the samples would be lost"
                )
        dropout = {**recipe.trainable.model_dump(), **phase.trainable}["decoder_dropout"]
        if train["gradient_checkpointing"] and dropout:
            raise ValueError(
                f"phases.{phase.name}.trainable.decoder_dropout with gradient_checkpointing: "
                "reward tuning has no dropout; set it to 0"
            )
