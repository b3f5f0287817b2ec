"""Feature shards: safetensors files of many images' features, written atomically, memory-mapped.

A shard holds `features` (N, P, W) and, with int8, `scales` (N, P); its metadata holds the N keys.
Shape letters: N images of a shard, P patches, W ViT width.
"""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from qvft.data.features.cache_spec import FeatureSpec
from qvft.data.features.folders import SHARD
from qvft.disk import error_number, not_written
from qvft.errors import DataError, QvftError, SpaceError
from qvft.files import new_file

if TYPE_CHECKING:
    from torch import Tensor

_INT8_MAX = 127


def stored(spec: FeatureSpec, features: Tensor) -> dict[str, Tensor]:
    """Tensors that a shard stores for features (N, P, W).

    With int8 each token is stored as round(x / s), s = max|x| / 127: an error of s / 2 at most.
    """
    import torch

    assert features.shape[1:] == (spec.patches, spec.width), tuple(features.shape)
    features = features.detach().cpu()
    if spec.stored_dtype != "int8":
        return {"features": features.to(getattr(torch, spec.stored_dtype))}
    exact = features.float()
    scales = exact.abs().amax(dim=-1) / _INT8_MAX
    steps = exact / scales.where(scales > 0, torch.ones_like(scales))[..., None]
    values = steps.round().clamp(-_INT8_MAX, _INT8_MAX).to(torch.int8)
    return {"features": values, "scales": scales}


def write_shard(folder: Path, keys: Sequence[bytes], chunks: Sequence[dict[str, Tensor]]) -> Path:
    """Writes chunks from `stored` as one new shard, atomically; `keys` are of all their images.

    Raises:
        SpaceError: the disk or the quota is full.
        DataError: the folder cannot be written to.
    """
    import torch
    from safetensors.torch import save_file

    path = folder / f"{uuid.uuid4().hex}{SHARD}"
    tensors = {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}
    assert all(len(keys) == len(tensor) for tensor in tensors.values())
    try:
        with new_file(path) as partial:
            partial.touch()
            mode = partial.stat().st_mode
            save_file(tensors, partial, metadata={"keys": " ".join(key.hex() for key in keys)})
            partial.chmod(mode)  # safetensors makes files readable only by the owner
    except QvftError:
        raise
    except (OSError, SafetensorError) as error:
        number = error_number(error)
        if number in (errno.ENOSPC, errno.EDQUOT):
            raise SpaceError(
                f"no room left ({os.strerror(number)}); the shards written before are complete",
                where=str(folder),
                do="free some room and start again: it resumes where it stopped",
            ) from error
        raise not_written(OSError(number, str(error)), path) from error
    return path


def read_keys(path: Path) -> list[bytes]:
    """The keys of a shard's images, from its header; does not import torch.

    Raises:
        DataError: the file is damaged.
        OSError: it cannot be opened.
    """
    try:
        with safe_open(path, "np") as file:
            keys = [bytes.fromhex(key) for key in file.metadata()["keys"].split()]
            lengths = {file.get_slice(name).get_shape()[0] for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(f"damaged ({error})", where=str(path)) from error
    if lengths != {len(keys)}:
        raise DataError(f"damaged: {len(keys)} keys for {lengths} images", where=str(path))
    return keys


class Shard:
    """A complete shard, memory-mapped at first use, so only what is read is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mapped: dict[str, Tensor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mapped": None}  # a spawned worker maps the file itself

    def features(self, number: int) -> Tensor:
        """Features (P, W) of an image: a view of the memory map, which must not be modified; with
        int8 a new float32 tensor. Raises DataError if the shard is missing or truncated."""
        if self._mapped is None:
            self._mapped = self._map()
        values = self._mapped["features"][number]
        if "scales" in self._mapped:
            return values * self._mapped["scales"][number][:, None]
        return values

    def _map(self) -> dict[str, Tensor]:
        try:
            with safe_open(self.path, "pt") as file:
                mapped = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise DataError(
                f"cannot be read any more ({error})",
                where=str(self.path),
                do="start again: what is missing is computed again",
            ) from error
        with contextlib.suppress(OSError):  # a read-only cache
            os.utime(self.path)  # `list` and `prune` use the time of last use
        return mapped
