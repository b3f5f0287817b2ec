"""Checkpoint safety: refuses a checkpoint whose JSON runs remote code or reads other files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from qvft.errors import ModelError
from qvft.json_files import read_json

INDEX = "model.safetensors.index.json"
_KERNELS = ("_attn_implementation_internal", "_experts_implementation_internal")


def require_safe_checkpoint(config: PretrainedConfig, *, where: str) -> None:
    """Checks that a configuration names no kernel of a hub, which transformers would run.

    Code named by `auto_map` is not run either, since nothing here passes `trust_remote_code`.

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
    """The weight files that an index of shards names, sorted.

    Raises:
        DataError: the index is not JSON.
        ModelError: it has no map of weights, or names what is no safetensors file beside it.
    """
    content = read_json(index)
    named: Any = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(named, dict) or not named:
        raise ModelError("has no weight_map", where=str(index))
    require_own_files(named.values(), where=str(index))
    return sorted(set(named.values()))


def require_own_files(names: Iterable[Any], *, where: str) -> None:
    """Checks that each name is that of a safetensors file in the index's own folder.

    Raises:
        ModelError: one leads elsewhere or is of another kind.
    """
    for name in names:
        text = name if isinstance(name, str) else ""
        plain = text == Path(text).name and "\\" not in text and "\0" not in text
        if not plain or not text.endswith(".safetensors"):
            raise ModelError(
                f"names the file {str(name)[:80]!r}",
                where=where,
                expected="safetensors files beside it",
                do="copy or download the whole checkpoint again",
            )
