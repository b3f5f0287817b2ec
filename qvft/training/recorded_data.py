"""Training data, and the run it started from, as a manifest records them, compared with now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from qvft.adapters.manifest import MANIFEST, read_manifest
from qvft.data.sample import Sample
from qvft.errors import CheckpointError, UserError
from qvft.log import is_main_process
from qvft.recipe.schema import Recipe
from qvft.setup.data import Split, images_hash, read_split, read_texts, samples_hash
from qvft.setup.source_names import source_name, split_source
from qvft.setup.start_run import StartRun
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
        found: None if the data cannot be read, for the reason in `problem`.
    """

    what: str
    which: str | None
    recorded: str
    found: str | None
    problem: str = ""


def data_hashes(splits: Mapping[str, Split | None]) -> dict[str, str]:
    """Hash of the texts of `train` and `eval`, by split name, for a manifest."""
    present = {which: split for which, split in splits.items() if split is not None}
    names = [split.name for split in present.values()]
    return {
        f"{split.name} ({which})" if names.count(split.name) > 1 else split.name: split.sha256
        for which, split in present.items()
    }


def image_hashes(splits: Mapping[str, Split | None]) -> dict[str, str]:
    """Hash of each split's images by `train` and `eval`, if they are files or embedded in rows.

    Only the main process reads them, for the manifest.
    """
    found = {
        which: images_hash(split.samples)
        for which, split in splits.items()
        if is_main_process() and split is not None and split.stream is None
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
    splits: dict[str, str] = {}  # `train` and `eval` by their possible names in the manifest
    for which in ("eval", "train"):
        if getattr(recipe.data, which) is not None:
            name = source_name(split_source(recipe, which))
            splits |= {f"{name} ({which})": which, name: which, f"data.{which}": which}

    def texts_hash(which: str) -> str:
        streamed = is_streamed(recipe, which)
        return stream_of(recipe).sha256 if streamed else samples_hash(samples(which))

    texts, images = manifest["data_sha256"], manifest.get("images_sha256", {})
    for key, recorded in texts.items():
        yield _compared(f"data {key}", splits.get(key), recorded, texts_hash)
    for which, recorded in images.items():
        key = f"data.{which}"
        yield _compared(
            f"images of {key}", splits.get(key), recorded, lambda which: images_hash(samples(which))
        )


def _compared(
    what: str, which: str | None, recorded: str, now: Callable[[str], str | None]
) -> Recorded:
    if which is None:
        return Recorded(what, None, recorded, None, "the recipe names no such data")
    try:
        return Recorded(what, which, recorded, now(which))
    except (UserError, OSError) as error:
        problem = error.given if isinstance(error, UserError) else error.strerror or str(error)
        return Recorded(what, which, recorded, None, problem)


def require_same_data(recipe: Recipe, folder: Path) -> None:
    """Raises CheckpointError on the main process if texts or images of a resumed run have changed.

    Unreadable data is ignored here: training reports it, and a finished run does not need it.
    """
    adapter = manifest_folder(folder)
    if adapter is None or not is_main_process():
        return
    for one in recorded_data(recipe, read_manifest(adapter), reader(recipe)):
        if one.which is not None and one.found is not None and one.found != one.recorded:
            sources = [source for _, source in recipe.data.sources(one.which)]
            named = [(source.path, source.questions, source.annotations) for source in sources]
            paths = [path for each in named for path in each if path]
            split = ", ".join(["", *(f"split {each.split}" for each in sources if each.split)])
            raise CheckpointError(
                f"other {'images' if one.what.startswith('images') else 'texts'} than the run in "
                f"{folder} has been trained on",
                where=f"data.{one.which}: {', '.join(paths or [sources[0].format])}{split}",
                do="restore the data and resume, or train anew with run.dir=PATH",
            )


def require_same_start(start: StartRun, folder: Path) -> None:
    """Raises CheckpointError on the main process if a resumed run started from other weights."""
    adapter = manifest_folder(folder)
    if adapter is None or not is_main_process():
        return
    recorded = read_manifest(adapter).get("started_from", {})
    if recorded.get("weights_sha256") != start.facts["weights_sha256"]:
        raise CheckpointError(
            f"has other weights than when the run in {folder} started from it",
            where=start.key,
            do="restore them and resume, or train anew with run.dir=PATH",
        )


def manifest_folder(run: Path) -> Path | None:
    """Folder of a run's newest manifest: its adapter, else its last checkpoint."""
    if is_finished(run):
        return run / "adapter"
    phases = [path for path in run.glob("checkpoints/*") if path.name.isdigit()]
    for phase in sorted(phases, key=lambda path: int(path.name), reverse=True):
        for folder in (phase / "weights", *reversed(whole_checkpoints(phase))):
            if (folder / MANIFEST).is_file():
                return folder
    return None
