"""Requirements of a merge or export, checked without torch."""

from __future__ import annotations

import re
from pathlib import Path

from qvft.adapters.lora_config import CONFIG
from qvft.adapters.manifest import alignment_entry, read_manifest
from qvft.errors import CheckpointError, UserError
from qvft.recipe.schema import Recipe
from qvft.setup.data import read_texts
from qvft.setup.given_data import path_override
from qvft.setup.streaming import is_streamed

FORMS = ("peft", "qvision", "retrieval")
IMAGES_READ = 64
"""Number of images from which verification samples are chosen."""


def check_shard_size(text: str) -> str:
    """The shard size; raises UserError if it is not a whole number with KB, MB or GB."""
    if not re.fullmatch(r"[1-9][0-9]*(KB|MB|GB)", text):
        raise UserError(f'"{text}"', where="--shard-size", expected="a size such as 5GB or 500MB")
    return text


def require_form(run_dir: Path, to: str) -> None:
    """Raises UserError if there is no such form, or the run lacks what it needs."""
    if to not in FORMS:
        raise UserError(f'"{to}"', where="--to", expected="one of " + ", ".join(FORMS))
    adapter = run_dir / "adapter"
    manifest = read_manifest(adapter)
    if to == "peft" and not (adapter / CONFIG).is_file():
        raise CheckpointError(
            "the run trained no LoRA", where=str(adapter), do="qvft.merge writes the whole model"
        )
    if to == "qvision" and manifest["family"] != "qvision":
        raise CheckpointError(
            f"is of family {manifest['family']}", where=str(run_dir), expected="a QVision"
        )
    if to == "retrieval":
        alignment_entry(adapter, manifest)


def probe_split(recipe: Recipe) -> str:
    """Data used for verification: `eval`, or `train` if there is none."""
    return "eval" if recipe.data.eval else "train"


def with_few_images(recipe: Recipe) -> Recipe:
    """The recipe with a limited number of images for verification."""
    which = probe_split(recipe)
    sources = [source for _, source in recipe.data.sources(which)]
    if not sources:
        return recipe
    each = -(-IMAGES_READ // len(sources))
    few = [
        source.model_copy(update={"limit": min(source.limit or each, each)}) for source in sources
    ]
    data = recipe.data.model_copy(update={which: few if recipe.data.lists(which) else few[0]})
    return recipe.model_copy(update={"data": data})


def require_texts(recipe: Recipe) -> None:
    """Raises UserError if the data for verification cannot be read; images are not read."""
    which = probe_split(recipe)
    if is_streamed(recipe, which):
        return
    try:
        read_texts(with_few_images(recipe), which)
    except UserError as error:
        raise data_error(error, recipe) from error


def data_error(error: UserError, recipe: Recipe) -> UserError:
    """Adds to a data error why the data is read."""
    which = probe_split(recipe)
    source = dict(recipe.data.sources(which)).get(which)
    override = path_override(which, source.format if source is not None else "")
    if recipe.data.lists(which):
        override = f"data.{which}={{path: YOUR_DATA}}"
    return type(error)(
        f"{error.given} (the written model is verified on a few samples of the run's data)",
        where=error.where,
        expected=error.expected,
        do=f"name where the data is now with {override}",
    )
