"""Refuses outputs of a model that are NaN or infinite: an argmax of NaN is a word too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from qvft.errors import FailedError


def require_finite(values: Tensor, what: str) -> Tensor:
    """The values; raises FailedError if one of them is NaN or infinite."""
    if not bool(torch.isfinite(values).all()):
        raise FailedError(
            f"{what} of the model are NaN or infinite: its weights are damaged, or too large for "
            "their type; look at them, and set model.dtype=float32 if they are float16"
        )
    return values


@contextmanager
def finite_logits(model: Any) -> Iterator[None]:
    """Within it, the largest logit of each call of the model's head must be finite; looked at once,
    at its end.
    """
    head = model.get_output_embeddings()
    if head is None:
        yield
        return
    largest: list[Tensor] = []
    watch = head.register_forward_hook(lambda *given: largest.append(given[-1].detach().amax()))
    try:
        yield
    except RuntimeError as error:
        if largest and "probability tensor" in str(error):  # sampling refuses them too
            require_finite(torch.stack(largest), "the logits")
        raise
    finally:
        watch.remove()
    if largest:
        require_finite(torch.stack(largest), "the logits")
