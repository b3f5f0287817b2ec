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
from qvft.models.base_checkpoint import find_checkpoint
from qvft.models.load import load_model, load_processor
from qvft.models.qvision.configuration import QVisionConfig
from qvft.models.qvision.publish import require_publishable, write_bases
from qvft.models.qvision.published import gpt_neo_location, tokenizer_location
from qvft.models.qvision.published_weights import published_keys, read_published
from qvft.setup.model import processor_of
from qvft.weights.base_weights import base_weights
from qvft.weights.merge_inputs import MergeInputs
from qvft.weights.merge_plan import MergePlan, make_plan
from qvft.weights.probe_outputs import plain_outputs
from qvft.weights.run_probes import reference_outputs, require_rows
from qvft.weights.tensor_file import write_tensor_file
from qvft.weights.write import require_room

logger = get_logger("qvft.export")


def export_published(folder: Path, inputs: MergeInputs) -> dict[str, Any]:
    """Writes base and trained weights with LoRA merged, and verifies that they load and agree.

    Raises:
        UserError: the run is not a QVision, or does not fit the layout.
        VerificationError: written weights differ from the plan, or outputs differ.
    """
    base = inputs.base
    config = cast(QVisionConfig, base.config)
    require_publishable(config)
    rows = require_rows(inputs.recipe, base)
    require_room(folder.parent, inputs.weights, inputs.written)
    processor = processor_of(inputs.recipe, base)
    plan = _write_weights(folder, inputs)
    gpt_neo, tokenizer = base.decoder, None
    if base.published:
        gpt_neo = gpt_neo_location(base.location, base.revision)
        tokenizer = tokenizer_location(base.location, base.revision)
    write_bases(folder, config, processor, gpt_neo=gpt_neo, tokenizer=tokenizer)
    weights = _verify_weights(folder, inputs, plan)
    logger.info("running base and adapter on real samples")
    rounded = plan.rounded(inputs.stored)
    reference = reference_outputs(inputs, rows, rounded=rounded, written=inputs.written)
    logger.info("running the exported model")
    written = find_checkpoint(str(folder))
    outputs = plain_outputs(
        load_model(written, dtype=reference.computed, device=reference.place),
        load_processor(written),
        reference.template,
        reference.probes,
    )
    comparison = reference.require_equal(outputs, what="the exported model")
    return {"weights": weights, "keys": plan.counts(), **comparison.figures()}


@torch.no_grad()
def _write_weights(folder: Path, inputs: MergeInputs) -> MergePlan:
    """Writes the three files, with one weight in memory at a time besides the base."""
    model, weights = base_weights(inputs)
    plan = make_plan(model, bridge=inputs.bridge, lora=inputs.lora, dtype=inputs.written)
    logger.info("%s: writing %d weights", inputs.base.id, len(plan.actions))
    outline = plan.outline()
    for component, keys in published_keys(plan.actions).items():
        owners = {key: plan.owners.get(name, name) for key, name in keys.items()}
        write_tensor_file(
            folder / f"{component}.safetensors",
            {key: outline[name] for key, name in owners.items()},
            partial(_value, plan=plan, owners=owners, weights=weights),
        )
    del model, weights
    gc.collect()
    return plan


def _value(
    key: str, *, plan: MergePlan, owners: Mapping[str, str], weights: Mapping[str, Tensor]
) -> Tensor:
    return plan.value(owners[key], weights[owners[key]])


def _verify_weights(folder: Path, inputs: MergeInputs, plan: MergePlan) -> int:
    """Re-reads the files and compares each weight with the plan; returns their number."""
    written = read_published(str(folder), cast(QVisionConfig, inputs.base.config))
    _, weights = base_weights(inputs)
    for name, tensor in written.items():
        owner = plan.owners.get(name, name)
        if not torch.equal(tensor, plan.value(owner, weights[owner])):
            raise VerificationError(f"{name} was not written as planned")
    return sum(tensor.numel() for name, tensor in written.items() if name not in plan.owners)
