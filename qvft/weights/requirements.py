"""Requirements of a merge or export, checked without torch."""

from __future__ import annotations

from pathlib import Path

from qvft.adapters.lora_config import CONFIG
from qvft.adapters.manifest import alignment_entry, read_manifest
from qvft.errors import CheckpointError, UserError
from qvft.recipe.schema import Recipe
from qvft.setup.data import read_texts
from qvft.setup.given_data import where_it_lies

FORMS = ("peft", "qvision", "retrieval")
IMAGES_READ = 64
"""Number of images from which verification samples are chosen."""


def require_form(run_dir: Path, to: str) -> None:
    """Checks that the export form exists, and that the run has what it needs.

    Raises:
        UserError: it does not.
    """
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


def asked_about(recipe: Recipe) -> str:
    """Data used for verification: `eval`, or `train` if there is none."""
    return "eval" if recipe.data.eval else "train"


def of_a_few(recipe: Recipe) -> Recipe:
    """The recipe with a limited number of images for verification."""
    which = asked_about(recipe)
    source = getattr(recipe.data, which)
    if source is None:
        return recipe
    limit = min(source.limit or IMAGES_READ, IMAGES_READ)
    data = recipe.data.model_copy(update={which: source.model_copy(update={"limit": limit})})
    return recipe.model_copy(update={"data": data})


def require_texts(recipe: Recipe) -> None:
    """Checks that the data for verification exists; images are not read.

    Raises:
        UserError: it does not.
    """
    if getattr(getattr(recipe.data, asked_about(recipe)), "stream", False):
        return
    try:
        read_texts(of_a_few(recipe), asked_about(recipe))
    except UserError as error:
        raise as_of_a_proof(error, recipe) from error


def as_of_a_proof(error: UserError, recipe: Recipe) -> UserError:
    """Adds to a data error why the data is read."""
    which = asked_about(recipe)
    source = getattr(recipe.data, which)
    lies = where_it_lies(which, source.format if source is not None else "")
    return type(error)(
        f"{error.given} (what is written is proven on a few samples of the run's data)",
        where=error.where,
        expected=error.expected,
        do=f"name where the data lies now with {lies}",
    )
