"""Collects what identifies an evaluation (weights, data, settings) before a model is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from qvft.adapters.manifest import read_manifest
from qvft.evaluation.evaluation_facts import DataFacts, DecodeFacts, ModelFacts
from qvft.models.load import gpu_has_bf16
from qvft.setup.data import Split
from qvft.setup.hashes import images_hash, trained_files
from qvft.setup.model import DTYPES, base_hash, base_of, device
from qvft.setup.resolve_model import ResolvedModel


def model_facts(opened: ResolvedModel) -> ModelFacts:
    """The model with the hashes of its weights, which are read but not loaded.

    Raises:
        CheckpointError: a run's adapter folder is incomplete.
        ModelError: the base is not found.
    """
    recipe = opened.recipe
    base = base_of(recipe)
    run = opened.home if opened.kind == "run" else None
    dtype = DTYPES.get(recipe.model.dtype, torch.bfloat16 if gpu_has_bf16() else torch.float32)
    place = device()
    return ModelFacts(
        name=opened.name,
        kind=opened.kind,
        base=recipe.model.id,
        base_revision=base.revision,
        decoder=recipe.model.decoder,
        base_weights_sha256=base_hash(recipe, base),
        adapter_sha256=trained_files(run / "adapter") if run else {},
        recipe_sha256=read_manifest(run / "adapter")["recipe_sha256"] if run else None,
        image_size=recipe.model.image_size,
        dtype=str(dtype).removeprefix("torch."),
        quantize=recipe.model.quantization.scheme,
        attention=recipe.model.kernel,
        device=torch.cuda.get_device_name(place) if place.type == "cuda" else place.type,
    )


def data_facts(split: Split) -> DataFacts:
    """The split with the hashes of its texts and of its image files."""
    return DataFacts(
        format=split.source.format,
        name=split.name,
        path=split.source.path,
        images=len(split.samples),
        sha256=split.sha256,
        images_sha256=images_hash(split.samples),
    )


def decode_facts(opened: ResolvedModel, generation: Mapping[str, Mapping[str, Any]]) -> DecodeFacts:
    """Decoding settings: `generation` from `generation_fields`, prompts, lengths."""
    recipe = opened.recipe
    return DecodeFacts(
        captions=dict(generation["caption"]),
        questions=dict(generation["question"]),
        batch_size=recipe.eval.batch_size,
        prompt=recipe.data.prompt.recorded(),
        text=recipe.data.text,
        max_text_tokens=recipe.data.max_text_tokens,
        rerank=recipe.eval.rerank,
        classes=recipe.eval.classes,
        class_prompts=recipe.eval.class_prompts if recipe.eval.classes else [],
    )
