"""Chooses the base model that fits a GPU, by the memory estimate of `qvft check`."""

from __future__ import annotations

from typing import Any

from qvft.models.model_path import TINY_ID
from qvft.recipe.load import parse_recipe

OPT = "Salesforce/blip2-opt-2.7b"
NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
CHOICES: tuple[tuple[dict[str, Any], int], ...] = (
    ({"id": OPT}, 16),
    ({"id": OPT}, 4),
    ({"id": OPT, "quantization": NF4}, 4),
    ({"id": OPT, "quantization": NF4}, 1),
)
"""Bases and their batch sizes per device, best first; together with accumulation 16 texts."""
MARGIN, RESERVE = 1.2, 0.8e9
"""For what the estimate is without: the allocator's overhead (a factor) and libraries' workspaces
(bytes). Chosen, not measured: so that four bits fit a GPU of 8 GB."""


def gpu_memory() -> tuple[str, int] | None:
    """Name and free bytes of the first GPU; None without one."""
    import torch

    if not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_name(0), torch.cuda.mem_get_info(0)[0]


def fitting_base(free: int | None, *, max_text_tokens: int) -> tuple[dict[str, Any], int, int]:
    """`model` of a recipe, its batch size per device, and the estimated bytes while training.

    The bundled model, of which nothing is estimated, where no other fits the `free` bytes of the
    GPU (None: there is no GPU).
    """
    if free is not None:
        for model, rows in CHOICES:
            needed = estimated_bytes(model, rows=rows, max_text_tokens=max_text_tokens)
            if needed * MARGIN + RESERVE <= free:
                return model, rows, needed
    return {"id": TINY_ID}, 0, 0


def estimated_bytes(model: dict[str, Any], *, rows: int, max_text_tokens: int) -> int:
    """Bytes on the GPU while training with LoRA on all linear layers and checkpointing."""
    from qvft.checking.check_memory import geometry_phases, known_base

    recipe = parse_recipe(
        {
            "name": "estimate",
            "model": model,
            "data": {"max_text_tokens": max_text_tokens},
            "trainable": {"decoder": "lora", "lora": {"target_modules": "all-linear"}},
            "train": {"per_device_train_batch_size": rows, "gradient_checkpointing": True},
        }
    )
    base = known_base(recipe)
    assert base is not None, "CHOICES have published configurations"
    (phase,) = geometry_phases(recipe, base.config)
    return phase.memory[0].total
