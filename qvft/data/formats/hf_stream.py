"""Streaming Hugging Face datasets: parquet files and Hub ids, row by row.

Rows carry their images' bytes. Rows with equal images are not merged as in `hf.read`, since that
would need all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qvft.data.formats import columns as table
from qvft.data.formats import fields, hf
from qvft.data.formats import preference_columns as preference
from qvft.data.formats.hf_images import image_cell, undecoded
from qvft.data.sample import EncodedImage, Pair, Sample
from qvft.data.stream import Part
from qvft.errors import DataError
from qvft.json_files import sha256_json

if TYPE_CHECKING:
    from datasets import IterableDataset

_ID_DIGITS = 32
"""Hexadecimal digits of an image's hash used as sample id."""
_BUFFER = 100
"""Shuffle buffer of `datasets`, in rows; the recipe's own buffer comes after it."""


@dataclass(frozen=True, eq=False)
class DatasetStream:
    """A streamed split; a `data.stream.Stream`."""

    dataset: IterableDataset
    columns: Mapping[str, str]
    where: str
    files: tuple[tuple[str, int], ...]

    def samples(self, part: Part) -> Iterator[Sample | DataError]:
        """The sample id is a hash of its image."""
        from datasets.distributed import split_dataset_by_node

        dataset = self.dataset
        if part.shuffled:
            seed = part.seed * 1_000_003 + part.number
            # With ten shards it would sleep for five seconds at the end of each pass, for its
            # threads.
            dataset = dataset.shuffle(seed=seed, buffer_size=_BUFFER, max_buffer_input_shards=1)
        own_rows = split_dataset_by_node(dataset, rank=part.rank, world_size=part.world)
        for number, row in enumerate(own_rows):
            try:
                yield self._sample(row, number)
            except DataError as error:
                yield error

    @property
    def sha256(self) -> str:
        """Hex SHA-256 over path, columns and the names and sizes of local files."""
        return sha256_json([self.where, dict(self.columns), self.files])

    def _sample(self, row: Mapping[str, Any], number: int) -> Sample:
        columns, where = self.columns, f"{self.where}, row {number} of a pass"
        image = image_cell(row[columns["image"]], where=where, column=columns["image"])
        texts = set(columns.values()) - {columns["image"]}
        row = table.with_class_names(row, self.dataset.features, texts, where=where)
        if not image["bytes"]:
            raise DataError(
                f"`{columns['image']}` holds no bytes",
                where=where,
                expected="one image inside each row",
                do="list them with stream: false, or pack them as tar shards",
            )
        name = hashlib.sha256(image["bytes"]).hexdigest()[:_ID_DIGITS]
        question_id = f"{name}#1"
        if "id" in columns:
            question_id = fields.identifier(row[columns["id"]], columns["id"], where=where)
            where = f"{where} ({columns['id']} {question_id})"
        question = table.question(row, columns, id=question_id, where=where)
        pairs: tuple[Pair, ...] = ()
        if "chosen" in columns:
            id = question_id if "id" in columns and not question else f"{name}#pair1"
            pairs = (preference.read_pair(row, columns, id=id, where=where),)
        return Sample(
            name,
            EncodedImage(bytes(image["bytes"]), where),
            tuple(table.captions(row, columns, where=where)),
            (question,) if question else (),
            pairs=pairs,
        )


def stream(
    path: Path, *, split: str | None = None, columns: Mapping[str, str] | None = None
) -> DatasetStream:
    """A parquet file, a folder of them, or a split of a Hub id, streamed."""
    where = str(path)
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if path.exists() and (not files or files[0].suffix != ".parquet"):
        raise DataError(
            "no .parquet file",
            where=where,
            expected="parquet, or a Hub id, where a dataset is streamed",
            do="remove `stream`, or pack the data as tar shards (format: tar)",
        )
    sizes = tuple((file.name, file.stat().st_size) for file in files if file.exists())
    dataset = hf.load(where, split=split, streaming=True)
    names = dataset.column_names or list(dataset.features or next(iter(dataset), {}))
    found = table.resolve(columns or {}, names, where=where)
    if "completion" in found:
        raise DataError(
            f"`{found['completion']}` and `{found['label']}`, whose rows are paired up",
            where=where,
            expected="`chosen` and `rejected` in a row where a dataset is streamed",
            do="remove `stream`",
        )
    dataset = dataset.select_columns(sorted(set(found.values())))
    return DatasetStream(undecoded(dataset, found["image"], where=where), found, where, sizes)
