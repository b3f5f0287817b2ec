"""Reads a checkpoint's safetensors headers; tensors are loaded lazily."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import transformers
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoConfig, PretrainedConfig

from qvft.errors import ModelError
from qvft.models.checkpoint_safety import INDEX, require_safe_checkpoint, shard_names

_SINGLE = "model.safetensors"
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "checkpoint.pth")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint with the shapes of its weights.

    Attributes:
        id: the user's name for it.
        location: argument of `from_pretrained`: a folder, or the hub id.
        revision: hub commit, None for folders.
        config: its configuration.
        files: weight key to its safetensors file.
        shapes: weight key to its shape.
    """

    id: str
    location: str
    revision: str | None
    config: PretrainedConfig
    files: dict[str, Path]
    shapes: dict[str, tuple[int, ...]]

    def tensors(self, keys: Collection[str]) -> dict[str, Tensor]:
        """Weights by key, memory-mapped."""
        found = {}
        for path in sorted({self.files[key] for key in keys}):
            with safe_open(path, framework="pt") as stream:
                held = (key for key in keys if self.files[key] == path)
                found.update({key: stream.get_tensor(key) for key in held})
        return found


def open_checkpoint(
    model_id: str, *, where: str, location: str | None = None, revision: str | None = None
) -> Checkpoint:
    """Reads the configuration of a checkpoint and the headers of its weight files.

    Args:
        model_id: a folder or a hub id.
        where: the recipe key that names it, for messages.
        location: its folder, if other than `model_id`.
        revision: hub revision; folders have none.

    Raises:
        ModelError: not found, no config, no safetensors, a damaged file, or a key in two files.
    """
    place = location or model_id
    if Path(place).is_dir() and not (Path(place) / "config.json").is_file():
        raise ModelError(
            "no config.json",
            where=f"{where}={model_id}",
            expected="a folder that save_pretrained wrote",
        )
    try:
        config = AutoConfig.from_pretrained(place, revision=revision, trust_remote_code=False)
    except Exception as error:  # a damaged config.json can raise nearly anything
        raise _not_found(model_id, where, error) from error
    require_safe_checkpoint(config, where=f"{where}={model_id}")
    files: dict[str, Path] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for path in _weight_files(model_id, place, where=where, revision=revision):
        for key, shape in _header(path).items():
            if key in files:
                raise ModelError(
                    f"{key} is in {files[key].name} and in {path.name}", where=model_id
                )
            files[key], shapes[key] = path, shape
    commit = None if Path(place).is_dir() else next(iter(files.values())).parent.name
    return Checkpoint(model_id, place, commit, config, files, shapes)


def _weight_files(model_id: str, place: str, *, where: str, revision: str | None) -> list[Path]:
    """Files named by the index, or the single file; other files are not read."""
    index = _file(place, INDEX, revision)
    names = [_SINGLE] if index is None else shard_names(index)
    paths = {name: _file(place, name, revision) for name in names}
    absent = [name for name, path in paths.items() if path is None]
    if absent:
        pickles = [name for name in _PICKLES if _file(place, name, revision) is not None]
        raise ModelError(
            f"no {absent[0]}" + (f", but the pickle {pickles[0]}" if pickles else ""),
            where=f"{where}={model_id}",
            expected="weights in safetensors"
            + (": a pickle can run code when it is read" if pickles else ""),
            do="load it with transformers where you trust it and save it with save_pretrained"
            if pickles
            else "copy or download the whole checkpoint",
        )
    return [path for path in paths.values() if path is not None]


def _file(place: str, name: str, revision: str | None) -> Path | None:
    """A file of a folder or hub checkpoint, None if there is none."""
    if Path(place).is_dir():
        path = Path(place) / name
        return path if path.is_file() else None
    try:
        found = transformers.utils.cached_file(place, name, revision=revision)
    except (OSError, ValueError):
        return None
    return Path(found) if found else None


def _header(path: Path) -> dict[str, tuple[int, ...]]:
    try:
        with safe_open(path, framework="pt") as stream:
            return {key: tuple(stream.get_slice(key).get_shape()) for key in stream.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot be read: {error}", where=str(path)) from error


def _not_found(model_id: str, where: str, error: Exception) -> ModelError:
    reason = str(error).strip().split("\n")[0]
    if Path(model_id).exists():
        return ModelError(
            reason, where=f"{where}={model_id}", expected="a complete checkpoint folder"
        )
    return ModelError(
        "neither a folder here nor to be had from the hub or its local cache",
        where=f"{where}={model_id}",
        expected="a folder, or a hub id",
        do=f"where there is a network, run `hf download {model_id}` and copy the folder ({reason})",
    )
