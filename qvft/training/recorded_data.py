"""Training data recorded in a run's manifest, compared with the current data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from qvft.adapters.fingerprints import MANIFEST
from qvft.adapters.manifest import read_manifest
from qvft.data.sample import Sample
from qvft.errors import CheckpointError, UserError
from qvft.log import is_main_process
from qvft.recipe.data import Source
from qvft.recipe.schema import Recipe
from qvft.setup.data import Split, read_split, read_texts, samples_hash, source_name
from qvft.setup.hashes import images_hash
from qvft.setup.streaming import is_streamed, stream_of
from qvft.training.checkpoints import whole_checkpoints
from qvft.training.run_folder import is_finished

Read = Callable[[str], list[Sample]]


@dataclass(frozen=True)
class Recorded:
    """A data hash of a manifest and its current value.

    Attributes:
        what: `data NAME`, or `images of NAME`.
        which: `train` or `eval`; None if the recipe names no such data.
        recorded, found: SHA-256 in hexadecimal; `found` is None if the data cannot be read.
        problem: why it cannot.
    """

    what: str
    which: str | None
    recorded: str
    found: str | None
    problem: str = ""


def data_hashes(splits: Mapping[str, Split | None]) -> dict[str, str]:
    """Hash of each split's texts, by split name, for a manifest.

    Args:
        splits: samples by `train` and `eval`.
    """
    present = {which: split for which, split in splits.items() if split is not None}
    names = [split.name for split in present.values()]
    return {
        _key(split.name, which, twice=names.count(split.name) > 1): split.sha256
        for which, split in present.items()
    }


def image_hashes(splits: Mapping[str, Split | None]) -> dict[str, str]:
    """Hash of each split's images by `train` and `eval`, if they are files or embedded in rows.

    Only the main process reads them, for the manifest.
    """
    if not is_main_process():
        return {}
    found = {
        which: images_hash(split.samples)
        for which, split in splits.items()
        if split is not None and split.stream is None
    }
    return {which: value for which, value in found.items() if value is not None}


def reader(recipe: Recipe) -> Read:
    """A function from `train` or `eval` to the usable samples, each read once."""

    @cache
    def samples(which: str) -> list[Sample]:
        if recipe.data.on_bad_image == "skip":  # known only after reading
            return read_split(recipe, which).samples
        return read_texts(recipe, which)

    return samples


def recorded_data(recipe: Recipe, manifest: Mapping[str, Any], samples: Read) -> Iterator[Recorded]:
    """Each data hash of a manifest with its current value."""
    names = _keys(recipe)
    for key, recorded in manifest["data_sha256"].items():
        which = names.get(key)
        yield _compared(
            f"data {key}", which, recorded, lambda which: _texts_hash(recipe, which, samples)
        )
    for which, recorded in manifest.get("images_sha256", {}).items():
        named = which if getattr(recipe.data, which, None) is not None else None
        yield _compared(
            f"images of data.{which}", named, recorded, lambda which: images_hash(samples(which))
        )


def require_same_data(recipe: Recipe, folder: Path) -> None:
    """Checks on the main process that a resumed run has unchanged data.

    Unreadable data is ignored here: training reports it, and a finished run does not need it.

    Raises:
        CheckpointError: texts or images have changed.
    """
    where = manifest_folder(folder)
    if where is None or not is_main_process():
        return
    manifest = read_manifest(where)
    for one in recorded_data(recipe, manifest, reader(recipe)):
        if one.which is not None and one.found is not None and one.found != one.recorded:
            source = getattr(recipe.data, one.which)
            kind = "images" if one.what.startswith("images") else "texts"
            raise CheckpointError(
                f"other {kind} than the run in {folder} has been trained on",
                where=f"data.{one.which}: {', '.join(_places(source))}",
                do="restore the data and resume, or train anew with run.dir=PATH",
            )


def manifest_folder(run: Path) -> Path | None:
    """Folder of a run's newest manifest: its adapter, else its last checkpoint."""
    if is_finished(run):
        return run / "adapter"
    phases = [path for path in run.glob("checkpoints/*") if path.name.isdigit()]
    for phase in sorted(phases, key=lambda path: int(path.name), reverse=True):
        folders = [phase / "weights", *reversed(whole_checkpoints(phase))]
        found = next((path for path in folders if (path / MANIFEST).is_file()), None)
        if found is not None:
            return found
    return None


def _key(name: str, which: str, *, twice: bool) -> str:
    return f"{name} ({which})" if twice else name


def _keys(recipe: Recipe) -> dict[str, str]:
    """`train` and `eval` by their possible names in a manifest."""
    keys: dict[str, str] = {}
    for which in ("eval", "train"):
        source: Source | None = getattr(recipe.data, which)
        if source is not None:
            keys |= {
                _key(source_name(source), which, twice=twice): which for twice in (True, False)
            }
    return keys


def _texts_hash(recipe: Recipe, which: str, samples: Read) -> str:
    return stream_of(recipe).sha256 if is_streamed(recipe, which) else samples_hash(samples(which))


def _compared(
    what: str, which: str | None, recorded: str, now: Callable[[str], str | None]
) -> Recorded:
    if which is None:
        return Recorded(what, None, recorded, None, "the recipe names no such data")
    try:
        return Recorded(what, which, recorded, now(which))
    except UserError as error:
        return Recorded(what, which, recorded, None, error.given)
    except OSError as error:
        return Recorded(what, which, recorded, None, error.strerror or str(error))


def _places(source: Source) -> list[str]:
    """Paths of the data, for messages."""
    given = (source.path, source.questions, source.annotations)
    split = f", split {source.split}" if source.split else ""
    return [place + split for place in given if place is not None] or [source.format]
