"""Finds and loads parts of a checkpoint in a folder or on the hub; refuses one whose JSON runs code
or reads other files. Failures are `ModelError`s.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig, PretrainedConfig

from qvft.errors import ModelError, first_line
from qvft.json_files import read_json
from qvft.models.model_path import TINY_ID, names_folder

INDEX = "model.safetensors.index.json"
_KERNELS = ("_attn_implementation_internal", "_experts_implementation_internal")


def checkpoint_file(location: str, name: str, revision: str | None = None) -> Path | None:
    """A file of a folder or hub checkpoint (downloaded if missing); None if there is none."""
    if Path(location).is_dir():
        path = Path(location) / name
        return path if path.is_file() else None
    try:
        found = transformers.utils.cached_file(location, name, revision=revision)
    except (OSError, ValueError):
        return None
    return Path(found) if found else None


def load_part(
    auto: Any,
    location: str,
    *,
    where: str | None = None,
    expected: str = "a complete checkpoint",
    do: str | None = None,
    **options: Any,
) -> Any:
    """Result of `auto.from_pretrained(location, **options)`.

    Args:
        where, expected, do: parts of the message; `where` is the location unless given.
    """
    try:
        return auto.from_pretrained(location, **options)
    except Exception as error:  # damaged files can raise nearly anything
        raise ModelError(
            first_line(error), where=where or location, expected=expected, do=do
        ) from error


def not_found(model_id: str, error: Exception, *, where: str = "model.id") -> ModelError:
    """The error for a checkpoint that cannot be loaded."""
    where = f"{where}={model_id}"
    if Path(model_id).exists():
        return ModelError(first_line(error), where=where, expected="a complete checkpoint folder")
    if names_folder(model_id):
        return ModelError("no such folder", where=where)
    return ModelError(
        "neither a folder here nor found on the hub or in its local cache",
        where=where,
        expected="a folder, or a hub id",
        do=f"where there is a network, run `hf download {model_id}` and copy the folder; "
        f"{TINY_ID} is bundled and needs none ({first_line(error)})",
    )


def refuse_weights(
    kind: str, keys: Collection[str], *, where: str, expected: str | None = None
) -> None:
    """Raises ModelError that names the first of these weights, if there are any."""
    if keys:
        listed = ", ".join(sorted(keys)[:3]) + (", ..." if len(keys) > 3 else "")
        raise ModelError(f"{len(keys)} {kind} weights: {listed}", where=where, expected=expected)


def require_safe_checkpoint(config: PretrainedConfig, *, where: str) -> None:
    """Raises ModelError if a configuration names a hub kernel, which transformers would execute.

    Code named by `auto_map` is not run, since qvft never passes `trust_remote_code`.
    """
    for one in _with_parts(config):
        for key in _KERNELS:
            named = getattr(one, key, None)
            if isinstance(named, str) and "/" in named:
                raise ModelError(
                    f"its config.json names the kernel {named[:80]}, which is code",
                    where=where,
                    expected="an attention that transformers has itself",
                    do="remove `attn_implementation` from config.json; the recipe sets it "
                    "(model.attn_implementation)",
                )


def read_config(
    model_id: str, location: str, revision: str | None, *, where: str = "model.id"
) -> PretrainedConfig:
    """The configuration of a checkpoint that the key `where` names; raises ModelError."""
    try:
        config = AutoConfig.from_pretrained(location, revision=revision, trust_remote_code=False)
    except Exception as error:  # a damaged config.json can raise nearly anything
        raise not_found(model_id, error, where=where) from error
    require_safe_checkpoint(config, where=f"{where}={model_id}")
    return config


def _with_parts(config: PretrainedConfig) -> Iterator[PretrainedConfig]:
    yield config
    for value in vars(config).values():
        if isinstance(value, PretrainedConfig):
            yield from _with_parts(value)


def shard_names(index: Path) -> list[str]:
    """Weight files named by a safetensors index, sorted.

    Raises:
        DataError: the index is not JSON.
        ModelError: it has no weight map, or names something else than a safetensors file in its
            folder.
    """
    content = read_json(index)
    named: Any = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(named, dict) or not named:
        raise ModelError("has no weight_map", where=str(index))
    for name in named.values():
        text = name if isinstance(name, str) else ""
        is_plain = text == Path(text).name and "\\" not in text and "\0" not in text
        if not is_plain or not text.endswith(".safetensors"):
            raise ModelError(
                f"names the file {str(name)[:80]!r}",
                where=str(index),
                expected="safetensors files in its own folder",
                do="copy or download the whole checkpoint again",
            )
    return sorted(set(named.values()))
