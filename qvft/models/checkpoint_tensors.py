"""Reads a checkpoint's safetensors headers; tensors are loaded lazily."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoProcessor, PretrainedConfig

from qvft.errors import ModelError
from qvft.models.checkpoint_files import INDEX, checkpoint_file, load_part, read_config, shard_names
from qvft.models.model_path import require_folder

_SINGLE = "model.safetensors"
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "checkpoint.pth")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint with the shapes of its weights.

    Attributes:
        location: argument of `from_pretrained`: a folder, or the hub id.
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
        tensors = {}
        for path in sorted({self.files[key] for key in keys}):
            with safe_open(path, framework="pt") as stream:
                in_file = (key for key in keys if self.files[key] == path)
                tensors.update({key: stream.get_tensor(key) for key in in_file})
        return tensors


def open_checkpoint(
    model_id: str, *, where: str, location: str | None = None, revision: str | None = None
) -> Checkpoint:
    """Reads the configuration of a checkpoint and the headers of its weight files.

    Args:
        location: its folder, if other than `model_id`.

    Raises:
        ModelError: not found, no config, no safetensors, a damaged file, or a key in two files.
    """
    location = location or model_id
    require_folder(location, where=where)
    config = read_config(model_id, location, revision, where=where)
    files: dict[str, Path] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for path in stored_files(location, revision, where=f"{where}={model_id}"):
        try:
            with safe_open(path, framework="pt") as stream:
                header = {k: tuple(stream.get_slice(k).get_shape()) for k in stream.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise ModelError(f"cannot be read: {error}", where=str(path)) from error
        for key, shape in header.items():
            if key in files:
                raise ModelError(
                    f"{key} is in {files[key].name} and in {path.name}", where=model_id
                )
            files[key], shapes[key] = path, shape
    commit = None if Path(location).is_dir() else next(iter(files.values())).parent.name
    return Checkpoint(model_id, location, commit, config, files, shapes)


def stored_files(location: str, revision: str | None, *, where: str) -> list[Path]:
    """The safetensors files of a folder or hub id that its index names, or the single one; raises
    ModelError if one is missing.
    """
    index = checkpoint_file(location, INDEX, revision)
    names = [_SINGLE] if index is None else shard_names(index)
    paths = {name: checkpoint_file(location, name, revision) for name in names}
    missing = next((name for name, path in paths.items() if path is None), None)
    if missing is not None:
        pickles = [name for name in _PICKLES if checkpoint_file(location, name, revision)]
        if pickles:
            raise ModelError(
                f"no {missing}, but the pickle {pickles[0]}",
                where=where,
                expected="weights in safetensors: a pickle can run code when it is read",
                do="load it with transformers where you trust it and save it with save_pretrained",
            )
        raise ModelError(
            f"no {missing}",
            where=where,
            expected="weights in safetensors",
            do="copy or download the whole checkpoint",
        )
    return [path for path in paths.values() if path is not None]


def base_processor(base: Checkpoint) -> Any:
    """The processor of a checkpoint; raises ModelError if it has none."""
    return load_part(
        AutoProcessor,
        base.location,
        where=base.id,
        expected="a checkpoint with its image processor and tokenizer",
        revision=base.revision,
        trust_remote_code=False,
    )
