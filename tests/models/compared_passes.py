"""A model's losses, gradients and texts, to compare two ways to compute them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from qvft.data.packing import Packer
from qvft.data.rows import Row
from qvft.inference.predict import outcomes
from qvft.setup.model import Loaded


def batch_of(loaded: Loaded, rows: list[Row], packer: Packer | None) -> dict[str, Tensor]:
    batch = replace(loaded.collator, packer=packer)(list(enumerate(rows)))
    batch.pop("row_index")
    batch["pixel_values"] = batch["pixel_values"].double()
    return batch


def with_gradients(model: torch.nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """The loss and every gradient."""
    model.zero_grad()
    loss.backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return {**found, "loss": loss.detach()}


def require_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        # Rotary embeddings, norms and losses of transformers compute in float32, whose last bits
        # (6e-8) differ by where a row stands in a batch; sums of some hundred terms of size 1.
        close = {"rtol": 1e-4, "atol": 1e-5, "check_dtype": False}
        torch.testing.assert_close(found[name], value, **close, msg=name)
    assert max(float(v.abs().max()) for n, v in expected.items() if "lora" in n) > 1e-3


def said(loaded: Loaded, rows: list[Row], settings: dict[str, Any]) -> list[tuple[str, ...]]:
    generation = dict.fromkeys(("caption", "question"), settings)
    texts: list[tuple[str, ...]] = [()] * len(rows)
    for found in outcomes(
        loaded.model, loaded.collator, rows, generation=generation, batch_size=5, workers=0
    ):
        texts[found.number] = found.texts
    return texts
