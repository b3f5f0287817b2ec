"""Source of every weight of a model that is made from two checkpoints.

A plan is checked before any weight is read: every weight of the model has a source of its shape,
and every weight of a source is used, or has a reason why not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from qvft.models.checkpoint_files import refuse_weights

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Origin:
    """Source of one weight.

    Attributes:
        source: `base` (BLIP-2), `text` (the text source), `decoder` (another decoder's checkpoint,
            see `new_decoder.py`), `fresh` (initialised), or `tied`.
        key: its key in that source; the key of the tensor it is tied to; else "".
        shape: its shape in the model.
        fresh_rows: rows at its end that the source does not have, initialised randomly.
    """

    source: Literal["base", "text", "decoder", "fresh", "tied"]
    key: str
    shape: tuple[int, ...]
    fresh_rows: int = 0


@dataclass(frozen=True)
class Origins:
    """The plan of a graft.

    Attributes:
        weights: every key of the model to its origin.
        unused: (source, key) of each unused weight, to the reason.
        twins: (source, key) of each weight that the model ties to another one, to that one's key
            in the source.
    """

    weights: dict[str, Origin]
    unused: dict[tuple[str, str], str]
    twins: dict[tuple[str, str], str] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """Weights by origin, initialised rows and unused weights, for logs and records."""
        return {
            "weights": dict(Counter(o.source for o in self.weights.values())),
            "fresh_rows": {
                key: [o.shape[0] - o.fresh_rows, o.shape[0]]
                for key, o in self.weights.items()
                if o.fresh_rows
            },
            "unused": dict(Counter(f"{source}: {why}" for (source, _), why in self.unused.items())),
        }


def checked_origins(
    weights: dict[str, Origin],
    sources: Mapping[str, Shapes],
    reason: Callable[[str, str], str | None],
    *,
    twins: dict[tuple[str, str], str],
    where: str,
    expected: str,
) -> Origins:
    """The plan with these origins, every key and shape of the sources accounted for.

    Args:
        sources: keys and shapes of the checkpoints by source.
        reason: why a weight (source, key) is not used; None if it is unexpected.

    Raises:
        ModelError: a weight has no source, a source has an unexpected weight, or a shape differs.
    """
    missing, wrong, unexpected = [], [], []
    used = set()
    for origin in weights.values():
        if origin.source not in sources:
            continue
        used.add((origin.source, origin.key))
        found = sources[origin.source].get(origin.key)
        expected_shape = (origin.shape[0] - origin.fresh_rows, *origin.shape[1:])
        if found is None:
            missing.append(f"{origin.key} (of the {origin.source} checkpoint)")
        elif found != expected_shape:
            wrong.append(
                f"{origin.key} of the {origin.source} checkpoint is {found}, "
                f"expected {expected_shape}"
            )
    unused: dict[tuple[str, str], str] = {}
    for source, shapes in sources.items():
        for key in shapes:
            if (source, key) in used:
                continue
            twin = twins.get((source, key))
            why = reason(source, key) if twin is None else f"the same tensor as {twin}"
            if why is None:
                unexpected.append(f"{key} (of the {source} checkpoint)")
            else:
                unused[source, key] = why
    for kind, problems in (("missing", missing), ("ill-sized", wrong), ("unexpected", unexpected)):
        refuse_weights(kind, problems, where=where, expected=expected)
    return Origins(weights, unused, twins)


def model_shapes(
    model_class: type[PreTrainedModel], config: PretrainedConfig
) -> tuple[Shapes, dict[str, str]]:
    """Keys and shapes of a model, and tied keys with the key of their tensor."""
    with torch.device("meta"):
        model = model_class(config)
    return {key: tuple(one.shape) for key, one in model.state_dict().items()}, tied_keys(model)


def tied_keys(model: nn.Module) -> dict[str, str]:
    """Keys of a state dict that share a tensor with another key, each with the first such key.

    OPT's `lm_head` is tied to its token embedding; only one is stored.
    """
    first: dict[int, str] = {}
    owners: dict[str, str] = {}
    # Compares parameter objects, since on the meta device all weights have address 0.
    for key, tensor in model.state_dict(keep_vars=True).items():
        owner = first.setdefault(id(tensor), key)
        if owner != key:
            owners[key] = owner
    return owners
