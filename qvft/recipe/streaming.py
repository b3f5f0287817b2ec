"""Recipe keys that do not work with streaming."""

from __future__ import annotations

from typing import Any


def require_streamable(recipe: Any) -> None:
    """Raises ValueError, of which pydantic makes an error, where a recipe asks a stream for more
    than can be known of it.

    Args:
        recipe: a `schema.Recipe`, which is made of what this file checks.
    """
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
