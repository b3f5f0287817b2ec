"""What identifies an evaluation: weights, data and settings, known before a model is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from qvft.adapters.checkpoint import read_manifest
from qvft.assembly.data import Split
from qvft.assembly.model import DTYPES, base_hash, base_of, device
from qvft.assembly.opening import Opened
from qvft.data.formats.drawn import DrawnImage
from qvft.data.sample import ImageFile, ImageSource, Sample
from qvft.evaluation.facts import DataFacts, DecodeFacts, ModelFacts
from qvft.files import sha256_file
from qvft.models.load import gpu_has_bf16

# Files of an adapter folder that shape what the model says; its manifest holds the run's path.
_TRAINED = ("*.safetensors", "adapter_config.json")


def model_facts(opened: Opened) -> ModelFacts:
    """The model with the hashes of its weights, which are read for it but not loaded.

    Raises:
        CheckpointError: a run's adapter folder is not whole.
        ModelError: the base is not there.
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
        base_weights_sha256=base_hash(recipe, base),
        adapter_sha256=trained_files(run / "adapter") if run else {},
        recipe_sha256=read_manifest(run / "adapter")["recipe_sha256"] if run else None,
        dtype=str(dtype).removeprefix("torch."),
        quantize=recipe.model.quantize.scheme,
        attention=recipe.model.kernel,
        device=torch.cuda.get_device_name(place) if place.type == "cuda" else place.type,
    )


def data_facts(split: Split) -> DataFacts:
    """The split with the hashes of its texts and of its image files."""
    return DataFacts(
        format=split.source.format,
        name=split.name,
        images=len(split.samples),
        sha256=split.sha256,
        images_sha256=images_hash(split.samples),
    )


def decode_facts(opened: Opened, generation: Mapping[str, Mapping[str, Any]]) -> DecodeFacts:
    """How the model is asked: `generation` as `generation_fields` gives it, prompts, lengths."""
    recipe = opened.recipe
    return DecodeFacts(
        captions=dict(generation["caption"]),
        questions=dict(generation["question"]),
        batch_size=recipe.eval.batch_size,
        prompt=recipe.data.prompt.model_dump(),
        max_text_tokens=recipe.data.max_text_tokens,
        rerank=recipe.eval.rerank,
        classes=recipe.eval.classes,
        class_prompts=recipe.eval.class_prompts if recipe.eval.classes else [],
    )


def images_hash(samples: Sequence[Sample]) -> str | None:
    """Hex SHA-256 over the content of the samples' images; None where one's is not at hand."""
    digest = hashlib.sha256()
    known: dict[str, str | None] = {}
    for sample in samples:
        source = sample.image
        if source.name not in known:
            known[source.name] = _content(source)
        content = known[source.name]
        if content is None:
            return None
        digest.update(content.encode() + b"\n")
    return digest.hexdigest()


def _content(source: ImageSource) -> str | None:
    """What determines an image's pixels: a hash of its bytes, or a drawn scene's numbers."""
    if isinstance(source, ImageFile):
        return sha256_file(source.path)
    if isinstance(source, DrawnImage):
        return source.name
    encoded = getattr(source, "encoded", None)  # an image inside a dataset
    return hashlib.sha256(encoded()).hexdigest() if encoded else None


def trained_files(folder: Path) -> dict[str, str]:
    files = sorted(path for pattern in _TRAINED for path in folder.glob(pattern))
    return {path.name: sha256_file(path) for path in files}
