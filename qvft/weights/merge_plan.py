"""Merge plan: per base weight, keep, replace, or add the LoRA update, and round."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from qvft.adapters.lora_weights import LoraWeight
from qvft.errors import CheckpointError
from qvft.models.weight_origins import tied_keys

_DROPPED_BITS = 16
ACTIONS = ("bridge", "lora", "untouched", "tied")


@dataclass(frozen=True)
class MergePlan:
    """A checked plan of a merge.

    Attributes:
        actions: per key of the base's state dict: `bridge` (replaced by the trained weight), `lora`
            (the adapter is added), `untouched`, or `tied` (the same tensor as another key).
        owners: tied key to the key of its tensor.
    """

    actions: Mapping[str, str]
    owners: Mapping[str, str]
    bridge: Mapping[str, Tensor]
    lora: Mapping[str, LoraWeight]
    dtypes: Mapping[str, torch.dtype]
    shapes: Mapping[str, tuple[int, ...]]

    def value(self, key: str, base: Tensor) -> Tensor:
        """Merged weight of `key`, given the base's tensor.

        Computed in float32 and rounded once, to the output dtype.

        Raises:
            CheckpointError: a weight overflows that dtype.
        """
        action = self.actions[key]
        exact = base
        if action == "bridge":
            exact = self.bridge[key]
        elif action == "lora":
            exact = self.lora[key].merged(base)
        trained = action in ("bridge", "lora")
        dtype = self.dtypes[key]
        rounded = round_weight(exact, dtype, key=key) if trained else exact.to(dtype)
        if rounded.is_floating_point() and not _is_finite(rounded):
            raise CheckpointError(
                f"{key} has weights that {str(dtype).removeprefix('torch.')} cannot hold",
                where="--dtype",
                do="choose bfloat16 or float32",
            )
        return rounded

    def rounded(self, stored: torch.dtype) -> set[str]:
        """Keys whose written weight is rounded, given the dtype of the base."""
        return {
            key
            for key, dtype in self.dtypes.items()
            if self.actions[key] in ("bridge", "lora")
            or (dtype.is_floating_point and torch.finfo(dtype).eps > torch.finfo(stored).eps)
        }

    def outline(self) -> dict[str, Tensor]:
        """Every written weight on the meta device: names, dtypes and shapes."""
        return {
            key: torch.empty(self.shapes[key], dtype=dtype, device="meta")
            for key, dtype in self.dtypes.items()
            if self.actions[key] != "tied"
        }

    def counts(self) -> dict[str, int]:
        """Keys per action."""
        found = Counter(self.actions.values())
        return {action: found[action] for action in ACTIONS}


def make_plan(
    base: nn.Module,
    *,
    bridge: Mapping[str, Tensor],
    lora: Mapping[str, LoraWeight],
    dtype: torch.dtype,
) -> MergePlan:
    """Plans the merge of `base`, an unquantized model without adapters, possibly on the meta
    device.

    Args:
        dtype: output dtype of floating-point weights. Parts that transformers keeps in float32 when
            loading float16 are then written in float32.

    Raises:
        CheckpointError: a weight is not in the base, duplicate, ill-sized, not finite or tied.
    """
    state = base.state_dict()
    owners = tied_keys(base)
    actions = {key: "tied" if key in owners else "untouched" for key in state}
    for action, shapes in (
        ("bridge", {key: tuple(tensor.shape) for key, tensor in bridge.items()}),
        ("lora", {key: layer.shape for key, layer in lora.items()}),
    ):
        for key, shape in shapes.items():
            if key not in state:
                raise CheckpointError(f"the {action} weight {key} has no place in the base")
            if actions[key] != "untouched":
                raise CheckpointError(f"{key} is {actions[key]} and {action} at once")
            if tuple(state[key].shape) != shape:
                raise CheckpointError(
                    f"the {action} weight {key} is {shape}",
                    expected=f"{tuple(state[key].shape)}, as in the base",
                )
            if action == "lora" and key in owners.values():
                raise CheckpointError(f"{key} is shared by two layers and has LoRA on one")
            actions[key] = action
    for key, layer in lora.items():
        _check_direction(key, layer, base)
    kept = set(getattr(base, "_keep_in_fp32_modules", None) or ())
    dtypes = {}
    for key, tensor in state.items():
        in_float32 = dtype == torch.float16 and not kept.isdisjoint(key.split("."))
        written = torch.float32 if in_float32 else dtype
        dtypes[key] = written if tensor.is_floating_point() else tensor.dtype
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    return MergePlan(actions, owners, dict(bridge), dict(lora), dtypes, shapes)


def _check_direction(key: str, layer: LoraWeight, base: nn.Module) -> None:
    """Checks the layout of square weights by class, since their shape fits both."""
    transposed = isinstance(base.get_submodule(key.rpartition(".")[0]), Conv1D)
    if transposed != layer.transposed:
        layouts = {True: "(in, out)", False: "(out, in)"}
        raise CheckpointError(
            f"the adapter of {key} is for a weight stored {layouts[layer.transposed]}",
            expected=f"{layouts[transposed]}, as in the base",
        )


def _is_finite(tensor: Tensor) -> bool:
    """Whether all weights are finite, without a temporary tensor, unlike `isfinite`."""
    return not tensor.numel() or all(bool(torch.isfinite(end)) for end in tensor.aminmax())


def round_weight(exact: Tensor, dtype: torch.dtype, *, key: str) -> Tensor:
    """Rounds a float32 weight to `dtype`; to bfloat16 stochastically.

    Base weights are bfloat16 numbers, and the update of a short training is often less than half a
    unit in the last place. Rounding to nearest would then undo it for all weights, and the merged
    model would be the base. With stochastic rounding errors are of the same size, but independent
    with zero mean, so the update survives in sums. Exactly representable weights do not change.

    Args:
        key: the weight's name, which seeds the rounding, so that it is reproducible.

    Source: Gupta et al., Deep Learning with Limited Numerical Precision, ICML 2015, section 3.
    """
    if dtype != torch.bfloat16:
        return exact.to(dtype)
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big")
    chance = torch.Generator().manual_seed(seed)
    bits = exact.detach().cpu().float().contiguous().view(torch.int32)
    drawn = torch.randint(0, 1 << _DROPPED_BITS, bits.shape, generator=chance, dtype=torch.int32)
    kept = (bits + drawn) & ~((1 << _DROPPED_BITS) - 1)
    return kept.view(torch.float32).to(torch.bfloat16).to(exact.device)
