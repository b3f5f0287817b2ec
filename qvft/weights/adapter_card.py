"""The card of a run's adapter: for `qvft export --to peft` and `qvft push`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import transformers

from qvft.adapters.lora_config import CONFIG
from qvft.adapters.manifest import fingerprints, read_manifest
from qvft.data.rows import Row
from qvft.errors import CheckpointError
from qvft.models.base_checkpoint import BaseCheckpoint
from qvft.recipe.schema import Recipe
from qvft.setup.model import processor_of
from qvft.setup.prompt_template import template_of
from qvft.weights.card import model_card


def run_card(
    run_dir: Path, recipe: Recipe, base: BaseCheckpoint, *, folder: str, rows: Sequence[Row] = ()
) -> str:
    """The card of a run's adapter as Markdown."""
    return model_card(
        recipe,
        run_dir,
        base,
        library="peft",
        folder=folder,
        manifest=read_manifest(run_dir / "adapter"),
        adapter_sha256=fingerprints(run_dir / "adapter"),
        template=template_of(recipe, base, processor_of(recipe, base)),
        rows=rows,
    )


def require_plain_base(run_dir: Path, base: BaseCheckpoint) -> None:
    """Raises CheckpointError unless transformers and PEFT alone can load the run's adapter."""
    if not (run_dir / "adapter" / CONFIG).is_file():
        raise CheckpointError(
            "the run trained no LoRA", where=str(run_dir), do="qvft.merge writes the whole model"
        )
    if base.graft is not None or base.stored_queries or base.stored_image_size:
        raise CheckpointError(
            "its base is not a plain checkpoint (model.text_branch, model.decoder, "
            "model.query_tokens, model.image_size)",
            where=str(run_dir),
            do="qvft.merge writes the whole model",
        )
    if not hasattr(transformers, base.family.model_class):
        raise CheckpointError(
            f"transformers has no {base.family.model_class}, which PEFT would need",
            where=str(run_dir),
            do="qvft.merge or --to qvision writes the whole model",
        )
