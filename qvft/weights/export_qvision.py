"""Exports a run's QVision in its published layout."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from qvft.errors import VerificationError
from qvft.log import get_logger
from qvft.models.base_checkpoint import BaseCheckpoint, find_checkpoint
from qvft.models.load import load_model, load_processor
from qvft.models.qvision.configuration import QVisionConfig
from qvft.models.qvision.publish import require_publishable, write_bases
from qvft.models.qvision.published import gpt_neo_place, tokenizer_place
from qvft.models.qvision.published_weights import published_keys, read_published
from qvft.setup.model import processor_of
from qvft.weights.merge_inputs import Ingredients
from qvft.weights.merge_plan import MergePlan, make_plan
from qvft.weights.open_base import base_weights
from qvft.weights.parity import compare, require_equal
from qvft.weights.probe_outputs import plain_outputs
from qvft.weights.run_probes import reference_outputs, require_rows
from qvft.weights.tensor_file import write_tensor_file
from qvft.weights.write import require_room

logger = get_logger("qvft.export")


def export_published(run_dir: Path, folder: Path, ingredients: Ingredients) -> dict[str, Any]:
    """Writes base and trained weights with LoRA merged, and verifies that they load and agree.

    Raises:
        UserError: the run is not a QVision, or does not fit the layout.
        VerificationError: written weights differ from the plan, or outputs differ.
    """
    base = ingredients.base
    config = cast(QVisionConfig, base.config)
    require_publishable(config)
    rows = require_rows(ingredients.recipe, base)
    require_room(folder.parent, ingredients.weights, ingredients.written)
    processor = processor_of(ingredients.recipe, base)
    plan = _write_weights(folder, ingredients)
    gpt_neo, tokenizer = _places(base)
    write_bases(folder, config, processor, gpt_neo=gpt_neo, tokenizer=tokenizer)
    weights = _verify_weights(folder, ingredients, plan)
    logger.info("asking base and adapter about real samples")
    reference = reference_outputs(
        run_dir,
        ingredients.recipe,
        rows=rows,
        weights=ingredients.weights,
        quantized=False,
        rounded=plan.rounded(ingredients.stored),
        written=ingredients.written,
    )
    logger.info("asking what was written")
    written = find_checkpoint(str(folder))
    said = plain_outputs(
        load_model(written, dtype=reference.computed, device=reference.place),
        load_processor(written),
        reference.template,
        reference.probes,
    )
    assert reference.tolerance is not None
    comparison = compare(reference.outputs, said, reference.tolerance)
    require_equal(comparison, what="the exported model", reference="base and adapter")
    return {"weights": weights, "keys": plan.counts(), **comparison.figures()}


@torch.no_grad()
def _write_weights(folder: Path, ingredients: Ingredients) -> MergePlan:
    """Writes the three files, with one weight in memory at a time besides the base."""
    model, weights = base_weights(ingredients)
    plan = make_plan(
        model, bridge=ingredients.bridge, lora=ingredients.lora, dtype=ingredients.written
    )
    logger.info("%s: %s", ingredients.base.id, plan.counts())
    for component, keys in published_keys(plan.actions).items():
        owners = {key: plan.owners.get(name, name) for key, name in keys.items()}
        outline = {
            key: torch.empty(plan.shapes[name], dtype=plan.dtypes[name], device="meta")
            for key, name in owners.items()
        }
        value = partial(_value, plan=plan, owners=owners, weights=weights)
        write_tensor_file(folder / f"{component}.safetensors", outline, value)
    del model, weights
    gc.collect()
    return plan


def _value(
    key: str, *, plan: MergePlan, owners: Mapping[str, str], weights: Mapping[str, Tensor]
) -> Tensor:
    return plan.value(owners[key], weights[owners[key]])


def _verify_weights(folder: Path, ingredients: Ingredients, plan: MergePlan) -> int:
    """Re-reads the files and compares each weight with the plan; returns their number."""
    written = read_published(str(folder), cast(QVisionConfig, ingredients.base.config))
    _, weights = base_weights(ingredients)
    for name, tensor in written.items():
        owner = plan.owners.get(name, name)
        if not torch.equal(tensor, plan.value(owner, weights[owner])):
            raise VerificationError(f"{name} was not written as planned")
    return sum(tensor.numel() for name, tensor in written.items() if name not in plan.owners)


def _places(base: BaseCheckpoint) -> tuple[str | None, str | None]:
    """Locations of the decoder's configuration and tokenizer, and of the marked tokenizer."""
    if base.published:
        where = base.location, base.revision
        return gpt_neo_place(*where), tokenizer_place(*where)
    if base.decoder is not None:
        return base.decoder, None
    return None, None
