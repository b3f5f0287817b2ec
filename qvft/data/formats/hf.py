"""Hugging Face datasets: Hub ids, saved folders, parquet, image folders, by `datasets`."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qvft.data.formats import columns as table
from qvft.data.formats import fields
from qvft.data.formats import preference_columns as preference
from qvft.data.formats.format import Format
from qvft.data.formats.hf_images import RowImage, image_cell, undecoded
from qvft.data.formats.path_guard import PathGuard
from qvft.data.formats.sample_builder import SampleBuilder, Unique, no_split
from qvft.data.images.listing import images_among
from qvft.data.sample import ImageFile, Sample
from qvft.errors import DataError, first_line
from qvft.log import get_logger

if TYPE_CHECKING:
    from datasets import Dataset

_log = get_logger(__name__)

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(:[\w.-]+)?")
_METADATA = ("metadata.jsonl", "metadata.csv")
_ALIASES = {"val": "validation", "validation": "val"}


def read(
    path: Path,
    *,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    allow_paths_outside_root: bool | None = None,
) -> Iterator[Sample]:
    """Samples in order of first appearance of their images; rows with equal images are merged.

    Images are not decoded: their bytes are read once to find equal ones.

    Args:
        path: a folder of `save_to_disk`, a parquet file or a folder of them, an image folder with
            `metadata.jsonl` or `metadata.csv`, or a Hub id (`owner/name`, `owner/name:config`).
        split: which split; None if there is one only. `val` also finds `validation`.
        columns: from the keys of `columns.DEFAULTS` to column names; see `columns.resolve`. An `id`
            is the question's where a row has one, then the pair's, otherwise the sample's; without,
            rows are numbered.
        allow_paths_outside_root: paths in a table may be outside its folder (for a Hub id: outside
            the cache of datasets).
    """
    dataset = load(str(path), split=split)
    folders = [path if path.is_dir() else path.parent]
    if not path.exists():  # from the Hub: its caches
        import datasets
        from huggingface_hub.constants import HF_HUB_CACHE

        folders = [Path(datasets.config.HF_DATASETS_CACHE), Path(HF_HUB_CACHE)]
        allow_paths_outside_root = allow_paths_outside_root or False
    guard = PathGuard(*folders, allow_paths_outside_root=allow_paths_outside_root)
    yield from samples_of(dataset, columns or {}, where=str(path), guard=guard)


def samples_of(
    dataset: Dataset, columns: Mapping[str, str], *, where: str, guard: PathGuard
) -> Iterator[Sample]:
    """As `read`, of a dataset in memory."""
    found = table.resolve(columns, dataset.column_names, where=where)
    column = found["image"]
    dataset = undecoded(dataset, column, where=where)
    dataset = dataset.select_columns(sorted(set(found.values())))
    images = dataset.select_columns([column])
    builders: dict[str, SampleBuilder] = {}
    ids = Unique(found.get("id", "id"))
    features, texts = dataset.features, set(found.values()) - {column}
    is_unpaired = "completion" in found
    rated: dict[str, list[preference.Rated]] = defaultdict(list)
    for number, written in enumerate(dataset):
        place = f"{where}, row {number}"
        row = table.with_class_names(written, features, texts, where=place)
        cell = image_cell(written[column], where=place, column=column)
        name = str(number)
        if "id" in found:
            name = fields.identifier(row[found["id"]], found["id"], where=place)
            if not is_unpaired:  # the two rows of a pair may have one id
                ids.add(name, where=place)
        question = table.question(row, found, id=name, where=place)
        if cell["bytes"]:
            key = hashlib.sha256(cell["bytes"]).hexdigest()
            image: RowImage | ImageFile = RowImage(images, column, number, place)
        else:
            image = guard.image(cell["path"], column, where=place)
            key = image.name
        own = question or is_unpaired or "chosen" in found  # the id is a text's
        builder = builders.setdefault(key, SampleBuilder(str(number) if own else name, image))
        builder.captions.extend(table.captions(row, found, where=place))
        if question:
            builder.questions.append(question)
        pair_id = name if "id" in found and not question else ""
        if is_unpaired:
            rated[key].append(preference.read_rated(row, found, id=pair_id, where=place))
        elif "chosen" in found:
            builder.pairs.append(preference.read_pair(row, found, id=pair_id, where=place))
    alone = 0
    for key, texts_of_image in rated.items():
        builders[key].pairs, without_partner = preference.pair_up(texts_of_image)
        alone += without_partner
    if alone:
        _log.warning(
            "%s: %d of %d completions have no partner with the other label for their image and "
            "prompt, and are left out",
            where,
            alone,
            sum(map(len, rated.values())),
        )
    pairs = (pair for builder in builders.values() for pair in builder.pairs)
    preference.warn_of_questions_inside(pairs, where=where)
    yield from (builder.sample() for builder in builders.values())


def load(path: str, *, split: str | None, streaming: bool = False) -> Any:
    """One split of `path`, from disk if present, otherwise from the Hub; raises as `read`.

    `streaming` returns an `IterableDataset`; on disk for parquet only.
    """
    place = Path(path)
    if not place.exists() and _HUB_ID.fullmatch(path) is None:
        raise DataError("no such file or folder", where=path, do="check the path")
    if place.is_file() and place.suffix != ".parquet":
        raise DataError(
            "a file",
            where=path,
            expected="a .parquet file or a folder",
            do="for a table use format csv, for texts in JSONL format jsonl",
        )

    import datasets
    from datasets.exceptions import DatasetsError

    try:
        if place.is_file():  # a split is only a label for it
            return datasets.load_dataset(
                "parquet", data_files=path, split="train", streaming=streaming
            )
        if place.exists():
            loaded = _load_folder(place, streaming=streaming)
        else:
            loaded = _load_hub(path, split=None if streaming else split, streaming=streaming)
    except DataError:
        raise
    except (DatasetsError, OSError, ValueError) as error:
        raise DataError(
            f"`datasets` cannot read it: {first_line(error)}",
            where=path,
            expected="a saved dataset, parquet, an image folder with metadata, or a Hub id",
            do="check that metadata.csv has commas between its columns, one of them `file_name`"
            if any((place / name).exists() for name in _METADATA)
            else None,
        ) from error
    if isinstance(loaded, datasets.Dataset):
        if split is None or loaded.split is None:
            return loaded
        loaded = {str(loaded.split): loaded}
    for name in (split, _ALIASES.get(split or "")):
        if name is not None and name in loaded:
            return loaded[name]
    if split is None and len(loaded) == 1:
        return next(iter(loaded.values()))
    raise no_split(split, where=path, splits=loaded)


def _load_folder(path: Path, *, streaming: bool) -> Any:
    import datasets

    if streaming:
        return datasets.load_dataset("parquet", data_dir=str(path), streaming=True)
    if any((path / name).exists() for name in ("dataset_dict.json", "state.json")):
        return datasets.load_from_disk(str(path))
    if any(file for name in _METADATA for file in path.rglob(name)):
        loaded = datasets.load_dataset("imagefolder", data_dir=str(path), drop_labels=True)
        splits = [split for split in loaded.values() if "image" in split.column_names]
        _warn_of_images_without_row(path, splits)
        return loaded
    if any(path.rglob("*.parquet")):
        return datasets.load_dataset("parquet", data_dir=str(path))
    raise DataError(
        "no saved dataset, no parquet and no metadata.jsonl or .csv",
        where=str(path),
        expected="one of these in the folder",
        do="for texts in JSONL use format jsonl",
    )


def _warn_of_images_without_row(folder: Path, splits: list[Any]) -> None:
    tables = [undecoded(one, "image", where=str(folder)) for one in splits]
    rows = (row for one in tables for row in one.select_columns(["image"]))
    cells = (row["image"] for row in rows if row["image"])
    named = {Path(cell["path"]).resolve() for cell in cells if cell["path"]}
    images, _ = images_among(sorted(folder.rglob("*")))
    unnamed = [image for image in images if image.resolve() not in named]
    if unnamed:
        _log.warning(
            "%s: %d of %d images have no row in the metadata and are skipped, first %s",
            folder,
            len(unnamed),
            len(images),
            unnamed[0].relative_to(folder),
        )


def _load_hub(path: str, *, split: str | None, streaming: bool) -> Any:
    import datasets

    name, _, config = path.partition(":")

    def load(split: str | None) -> Any:
        return datasets.load_dataset(name, config or None, split=split, streaming=streaming)

    try:
        try:
            return load(split)
        except ValueError:  # perhaps of an unknown split
            if split not in _ALIASES:
                raise
            return load(_ALIASES[split])
    except (OSError, ValueError) as error:
        raise DataError(
            f"not here, and the Hub gives no such dataset ({type(error).__name__})",
            where=path,
            expected="a local file or folder, or a Hub id with one of its configs and splits",
        ) from error


FORMAT = Format(
    "hf",
    "Hugging Face datasets: hub id, save_to_disk, parquet, image folder",
    read,
    ("split", "columns", "allow_paths_outside_root"),
)
