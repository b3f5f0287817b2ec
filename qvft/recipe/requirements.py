"""Recipe keys that do not work with preference or reward phases, lists of sources, or streaming."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def require_objectives(recipe: Any) -> None:
    """Raises ValueError, of which pydantic makes an error, if phases of a `schema.Recipe` cannot
    have their objectives.
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


def require_sources(data: Any) -> None:
    """Raises ValueError, of which pydantic makes an error, if sources, weights and the mixing
    temperature of a `recipe.data.Data` do not go together.
    """
    train, others = dict(data.sources("train")), dict(data.sources("eval"))
    for key, source in {**train, **others}.items():
        if source.stream and "." in key:
            raise ValueError(
                f"data.{key}.stream: a stream has no known size and cannot be mixed with other "
                "sources; remove it, or name this source alone"
            )
    for key, source in others.items():
        for name in ("weight", "answers"):
            if getattr(source, name) != type(source).model_fields[name].default:
                raise ValueError(f"data.{key}.{name} is for training; remove it")
    weighted = [key for key, source in train.items() if source.weight is not None]
    if weighted and len(weighted) < len(train):
        key = next(key for key in train if key not in weighted)
        raise ValueError(
            f"data.{key}.weight is not set, and data.{weighted[0]}.weight is; set all or none"
        )
    if data.lists("train") and weighted and data.mixing_temperature is not None:
        raise ValueError(f"data.mixing_temperature and data.{weighted[0]}.weight; set one of them")


def require_streamable(recipe: Any) -> None:
    """Raises ValueError if a `schema.Recipe` asks a stream for more than can be known of it."""
    data = recipe.data
    read = {f"data.{key}": source for key, source in data.sources("eval")}
    read |= {f"eval.retention.{place}": one for place, one in enumerate(recipe.eval.retention)}
    for where, one in read.items():
        for key in ("stream", "shuffle_buffer"):
            if getattr(one, key) != type(one).model_fields[key].default:
                raise ValueError(f"{where}.{key}: evaluation lists its data; remove the key")
    source = data.train
    if source is None or isinstance(source, list) or not source.stream:
        return
    if source.limit is not None:
        raise ValueError("data.train.limit has no use for a stream; set train.max_steps")
    if data.cache_images:
        raise ValueError("data.cache_images would keep all images of the stream; remove it")
    settings = [("train", {}), *((f"phases.{one.name}.train", one.train) for one in recipe.phases)]
    for where, changes in settings[1:] or settings:
        train = {**recipe.train.model_dump(include={"max_steps", "batch_tokens"}), **changes}
        if (train["max_steps"] or 0) < 1:
            raise ValueError(
                f"{where}.max_steps is not set, and a stream has no known length; set it"
            )
        if train["batch_tokens"] is not None:
            raise ValueError(
                f"{where}.batch_tokens plans an epoch from all of its texts, which a stream has "
                "not read; set per_device_train_batch_size"
            )
