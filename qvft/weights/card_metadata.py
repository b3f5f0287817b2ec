"""YAML front matter of a model card, in the form that the Hugging Face Hub validates.

Source: huggingface/hub-docs, modelcard.md; huggingface_hub, repocard_data.py.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from qvft.models.base_checkpoint import BaseCheckpoint
from qvft.models.checkpoint_files import checkpoint_file
from qvft.models.model_path import TINY_ID, names_folder
from qvft.recipe.schema import Recipe
from qvft.weights.card_scores import TASK, Scores, eval_results

_LICENSE = re.compile(r"^(license(?:_name|_link)?):[ \t]*['\"]?([^\s'\"#]+)", re.M)


def front_matter(recipe: Recipe, base: BaseCheckpoint, *, library: str, scores: Scores) -> str:
    """Licence, base, datasets and scores as YAML; ids only of what may be on the hub."""
    bases = [name for name in (base.id, recipe.model.decoder) if name and on_hub(name)]
    train: Any = recipe.data.train
    sources = train if isinstance(train, list) else [train] if train else []
    datasets = [one.path for one in sources if one.format == "hf" and on_hub(one.path or "")]
    licence: dict[str, Any] = base_licence(base.location, base.revision)
    return ModelCardData(
        **licence,
        library_name=library,
        pipeline_tag=TASK,
        base_model=bases if len(bases) > 1 else bases[0] if bases else None,
        datasets=datasets or None,
        tags=["blip-2", "qvft"] + (["lora"] if library == "peft" else []),
        model_name=recipe.name,
        eval_results=eval_results(scores) or None,
    ).to_yaml()


def on_hub(name: str) -> bool:
    """Whether a name can be a hub id: no folder, and not the bundled model."""
    named = bool(name) and not names_folder(name) and not Path(name).is_dir()
    return named and name != TINY_ID


def base_licence(location: str, revision: str | None) -> dict[str, str]:
    """`license`, and `license_name` and `license_link` if given, of the base's own card.

    `unknown` if it has no card or the card names none.
    """
    card = checkpoint_file(location, "README.md", revision)
    text = card.read_text(encoding="utf-8", errors="replace") if card else ""
    parts = text.split("---", 2)
    found = dict(_LICENSE.findall(parts[1])) if text.startswith("---") and len(parts) > 2 else {}
    return found if "license" in found else {"license": "unknown"}
