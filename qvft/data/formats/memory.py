"""In-memory datasets from Python: a list of dicts or a `datasets.Dataset`, as samples."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from qvft.data.formats import fields, hf, jsonl, require_unique
from qvft.data.formats.columns import require_column
from qvft.data.formats.fields import Record
from qvft.data.formats.hf_images import RowImage, is_dataset, plain_rows
from qvft.data.formats.path_guard import PathGuard
from qvft.data.images.sources import image_source
from qvft.data.sample import ImageFile, ImageSource, Sample
from qvft.errors import DataError

if TYPE_CHECKING:
    from qvft.data.formats.hf import Dataset

    Rows: TypeAlias = Dataset | Iterable[Mapping[str, Any]]
    """Data accepted by `qvft.fit`."""


def samples_in_memory(
    rows: Rows, *, columns: Mapping[str, str] | None = None, where: str = "data"
) -> list[Sample]:
    """Samples from rows in memory; images are not decoded.

    Args:
        rows: dicts with the fields of the custom JSONL, or a `datasets.Dataset` with these or the
            columns of format hf. An image is anything that `image_source` accepts; relative paths
            are relative to the working directory. Rows of one image (path, object, equal bytes) are
            merged.
        columns: from a field to its column name, as in format hf.
        where: name of the data in messages and default sample ids.

    Raises DataError without rows, or with the number of an invalid row.
    """
    columns = dict(columns or {})
    if "datasets" in sys.modules and is_dataset(rows):
        samples = list(_of_dataset(rows, columns, where=where))
    else:
        _require_rows(rows, where=where)
        samples = list(jsonl.merged(_of_dicts(rows, columns, where=where)))
    if not samples:
        raise DataError("no rows", where=where, expected="at least one")
    require_unique(samples, where=where)
    return samples


def _of_dataset(dataset: Any, columns: dict[str, str], *, where: str) -> Iterator[Sample]:
    if {"questions", "pairs"} & set(dataset.column_names) and not columns:  # as the custom JSONL
        if "image" not in dataset.column_names:
            raise DataError("no column `image`", where=where)
        rows = plain_rows(dataset, "image", where=where)
        yield from jsonl.merged(_of_dicts(rows, columns, where=where))
        return
    anywhere = PathGuard(Path(), allow_paths_outside_root=True)
    yield from hf.samples_of(dataset.with_format(None), columns, where=where, guard=anywhere)


def _require_rows(rows: Any, *, where: str) -> None:
    if isinstance(rows, str | bytes | Mapping | Path) or not isinstance(rows, Iterable):
        do = "name a file in the recipe (data.train.path), or read it to a list first"
    elif hasattr(rows, "to_dict"):
        do = "give a table as frame.to_dict('records')"
    else:
        return
    expected = "a list of dicts or a datasets.Dataset"
    raise DataError(f"a {type(rows).__name__}", where=where, expected=expected, do=do)


def _of_dicts(
    rows: Iterable[Any], columns: Mapping[str, str], *, where: str
) -> Iterator[tuple[Record, ImageSource, str]]:
    """Each row as `jsonl.merged` expects it."""
    fields.known_keys(columns, jsonl.ROW_KEYS, where=f"{where}, columns")
    known: dict[Any, tuple[ImageSource, Any]] = {}  # ids of live objects are unique
    for number, given in enumerate(rows):
        place = f"{where}, row {number}"
        if not isinstance(given, Mapping):
            raise DataError(f"a {type(given).__name__}", where=place, expected="a dict")
        row = Record(_renamed(given, columns, where=place) if columns else given, place)
        fields.known_keys(row, jsonl.ROW_KEYS, where=place)
        image = fields.field(row, "image", where=place)
        source = image
        if not isinstance(image, RowImage):
            source = image_source(image, where=f"{place}, image", label=place)
        source, _ = known.setdefault(_identity(source, image), (source, image))
        yield row, source, str(image) if isinstance(image, str | Path) else source.name


def _identity(source: ImageSource, image: Any) -> Any:
    """Equal for rows of one image."""
    if isinstance(source, ImageFile):
        return source.name
    encoded = getattr(source, "encoded", None)
    return hashlib.sha256(encoded()).digest() if encoded else id(image)


def _renamed(row: Mapping[str, Any], columns: Mapping[str, str], *, where: str) -> dict[str, Any]:
    """A row by field names; unknown columns are dropped."""
    named = set(columns.values())
    found = {key: row[key] for key in jsonl.ROW_KEYS if key in row and key not in named}
    for key, column in columns.items():
        require_column(key, column, row, where=where)
        found[key] = row[column]
    return found
