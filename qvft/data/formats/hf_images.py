"""Rows of Hugging Face datasets with their images: bytes or paths, alone or as a list of one."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from qvft.errors import DataError, ImageError

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True, eq=False)
class RowImage:
    """An image embedded in a dataset; its bytes stay in the arrow file until they are read."""

    images: Dataset
    column: str
    row: int
    name: str

    def encoded(self) -> bytes:
        content = image_cell(self.images[self.row][self.column], where=self.name)["bytes"]
        if not content:
            raise ImageError("no bytes", where=self.name, do="remove the row")
        return bytes(content)

    def open(self) -> Image.Image:
        return Image.open(io.BytesIO(self.encoded()))


def image_cell(cell: Any, *, where: str, column: str = "image") -> dict[str, Any]:
    """The image of a cell, or of a list of one; raises DataError if there is none, or several."""
    listed = cell if isinstance(cell, list) else [cell]
    if len(listed) > 1:
        raise DataError(
            f"`{column}` has {len(listed)} images", where=where, expected="one image per row"
        )
    if not listed or not listed[0] or not (listed[0]["bytes"] or listed[0]["path"]):
        raise DataError(f"`{column}` is empty", where=where, expected="an image")
    return dict(listed[0])


def undecoded(dataset: Any, column: str, *, where: str) -> Any:
    """The dataset with images as bytes or paths; raises DataError if the column has no images."""
    import datasets

    image = datasets.Image(decode=False)
    is_list = isinstance((dataset.features or {}).get(column), datasets.List | datasets.LargeList)
    try:
        return dataset.cast_column(column, datasets.List(image) if is_list else image)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise DataError(
            f"column `{column}` is {dataset.features[column]}",
            where=where,
            expected="images, their bytes, or paths",
            do="set `columns.image`",
        ) from error


def is_dataset(rows: Any) -> bool:
    """Whether `rows` is a `datasets.Dataset`; raises DataError for its other dataset types."""
    import datasets

    if isinstance(rows, datasets.DatasetDict | datasets.IterableDatasetDict):
        raise DataError("several splits", expected="one of them: " + ", ".join(map(str, rows)))
    if isinstance(rows, datasets.IterableDataset):
        raise DataError(
            "an IterableDataset",
            expected="a datasets.Dataset, or a list of dicts",
            do="to stream data larger than memory set data.train.stream in the recipe",
        )
    return isinstance(rows, datasets.Dataset)


def plain_rows(dataset: Dataset, column: str, *, where: str) -> Iterator[dict[str, Any]]:
    """Rows as dicts without empty cells; their images are `RowImage` or paths, not decoded."""
    dataset = undecoded(dataset.with_format(None), column, where=where)
    images = dataset.select_columns([column])
    for number, row in enumerate(dataset):
        cell = row[column]
        if cell and cell["bytes"]:
            row[column] = RowImage(images, column, number, f"{where}, row {number}")
        elif cell:
            row[column] = cell["path"]
        yield {key: value for key, value in row.items() if value is not None}
