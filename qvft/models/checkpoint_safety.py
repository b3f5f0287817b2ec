"""Checkpoint safety: refuses a checkpoint whose JSON runs remote code or reads other files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from qvft.errors import ModelError
from qvft.json_files import read_json

INDEX = "model.safetensors.index.json"
_KERNELS = ("_attn_implementation_internal", "_experts_implementation_internal")


def require_safe_checkpoint(config: PretrainedConfig, *, where: str) -> None:
    """Checks that a configuration names no hub kernel, which transformers would execute.

    Code named by `auto_map` is not run, since qvft never passes `trust_remote_code`.

    Raises:
        ModelError: it does.
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
