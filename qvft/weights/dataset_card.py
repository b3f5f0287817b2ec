"""Dataset card of a data folder of `qvft init`, and the files of it that may go to the hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCardData

from qvft.data.formats.format_table import read_samples
from qvft.data.sample import ImageFile, Sample
from qvft.errors import DataError
from qvft.recipe.load import load_recipe
from qvft.weights.card import card_text

SPLITS = ("train", "val", "test")


def is_data_folder(folder: Path) -> bool:
    """Whether a folder is one that `qvft init` writes."""
    return (folder / "train.jsonl").is_file() and (folder / "recipe.yaml").is_file()


def dataset_files(folder: Path, repo: str, *, with_samples: bool) -> dict[str, Path | bytes]:
    """The card, with `with_samples` also texts and images, by their name in the repository.

    Raises:
        DataError: the data cannot be read, or an image to upload is outside the folder.
        RecipeError: the recipe cannot be read.
    """
    texts = {name: folder / f"{name}.jsonl" for name in SPLITS}
    texts = {name: path for name, path in texts.items() if path.is_file()}
    read = {
        name: read_samples("jsonl", str(path), allow_paths_outside_root=True)
        for name, path in texts.items()
    }
    licence = load_recipe(str(folder / "recipe.yaml"), []).data.license
    counts = [_counts(name, samples) for name, samples in read.items()]
    values = {
        "metadata": _front_matter(repo, licence, counts),
        "name": repo.partition("/")[2],
        "splits": counts,
        "with_samples": with_samples,
    }
    files: dict[str, Path | bytes] = {"README.md": card_text("dataset_card.md.j2", values).encode()}
    if with_samples:
        files |= {path.name: path for path in texts.values()}
        for sample in (sample for samples in read.values() for sample in samples):
            files |= _image(sample, folder)
    return dict(sorted(files.items()))


def _counts(name: str, samples: Sequence[Sample]) -> dict[str, Any]:
    questions = [one for sample in samples for one in sample.questions]
    return {
        "name": name,
        "images": len(samples),
        "captions": sum(len(sample.captions) for sample in samples),
        "questions": len(questions),
        "answers": len({one.answers[0] for one in questions if one.answers}),
        "pairs": sum(len(sample.pairs) for sample in samples),
    }


def _front_matter(repo: str, licence: str | None, counts: Sequence[Mapping[str, Any]]) -> str:
    asked = any(one["questions"] for one in counts)
    captioned = any(one["captions"] for one in counts)
    tasks = ["visual-question-answering"] * asked + ["image-to-text"] * captioned
    return DatasetCardData(
        license=licence or "unknown",
        pretty_name=repo.partition("/")[2],
        task_categories=tasks or None,
        tags=["qvft"],
    ).to_yaml()


def _image(sample: Sample, folder: Path) -> dict[str, Path | bytes]:
    """A sample's image file by its path below the folder."""
    path = sample.image.path if isinstance(sample.image, ImageFile) else None
    if path is None or not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(
            "its image is outside the folder",
            where=f"{folder}, sample {sample.id}",
            do="write the folder with qvft init --copy-images",
        )
    return {path.resolve().relative_to(folder.resolve()).as_posix(): path}
