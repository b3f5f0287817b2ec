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
"""Images that the texts of a proof are chosen from."""


def require_form(run_dir: Path, to: str) -> None:
    """Checks that there is such a form, and that the run has what it holds.

    Raises:
        UserError: there is not, or it has not.
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
    """Which data a proof takes its texts from: `eval`, or `train` where there is no such data."""
    return "eval" if recipe.data.eval else "train"


def of_a_few(recipe: Recipe) -> Recipe:
    """The recipe with no more images than a proof chooses from."""
    which = asked_about(recipe)
    source = getattr(recipe.data, which)
    if source is None:
        return recipe
    limit = min(source.limit or IMAGES_READ, IMAGES_READ)
    data = recipe.data.model_copy(update={which: source.model_copy(update={"limit": limit})})
    return recipe.model_copy(update={"data": data})


def require_texts(recipe: Recipe) -> None:
    """Checks that the data is there which a proof asks about; its images are not looked at.

    Raises:
        UserError: it is not.
    """
    if getattr(getattr(recipe.data, asked_about(recipe)), "stream", False):
        return
    try:
        read_texts(of_a_few(recipe), asked_about(recipe))
    except UserError as error:
        raise as_of_a_proof(error, recipe) from error


def as_of_a_proof(error: UserError, recipe: Recipe) -> UserError:
    """What is wrong with data, with the reason why it is read."""
    which = asked_about(recipe)
    source = getattr(recipe.data, which)
    lies = where_it_lies(which, source.format if source is not None else "")
    return type(error)(
        f"{error.given} (what is written is proven on a few samples of the run's data)",
        where=error.where,
        expected=error.expected,
        do=f"name where the data lies now with {lies}",
    )
