"""Writes pairs as a parquet file with trl's preference columns, which `format: hf` reads back."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qvft.data.sample import ImageFile, ImageSource, Pair, Sample
from qvft.disk import not_written
from qvft.errors import DataError, ImageError, QvftError
from qvft.files import new_file, require_new

if TYPE_CHECKING:
    import datasets

_ROWS_AT_ONCE = 100
"""Rows, with the bytes of their images, held in memory and written as one row group."""


def write_trl(
    samples: Sequence[Sample], out: Path, *, conversational: bool = False, unpaired: bool = False
) -> int:
    """Writes the pairs of samples, atomically; returns the number of rows.

    Columns: `images` (a list of one image, its file's bytes unchanged), `prompt` (the question;
    empty for captions), `chosen` and `rejected`, and `id`. Source: trl 1.16,
    docs/source/dataset_formats.md.

    Args:
        out: a new parquet file.
        conversational: texts are lists of one message, of the user or the assistant.
        unpaired: `completion` and `label` instead of `chosen` and `rejected`: all chosen texts,
            then all rejected ones, as `trl.unpair_preference_dataset` orders them.

    Raises:
        DataError: no pairs, or `out` exists or is not writable.
        ImageError: an image cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not any(sample.pairs for sample in samples):
        raise DataError(
            "no pairs", expected="pairs of a chosen and a rejected text", do="write JSONL instead"
        )
    require_new(out)
    schema = _features(conversational, unpaired).arrow_schema
    count = 0
    try:
        with new_file(out) as partial, pq.ParquetWriter(partial, schema) as writer:
            batch: list[dict[str, Any]] = []
            for row in _rows(samples, conversational, unpaired):
                batch.append(row)
                count += 1
                if len(batch) == _ROWS_AT_ONCE:
                    writer.write_table(pa.Table.from_pylist(batch, schema=schema))
                    batch = []
            if batch:
                writer.write_table(pa.Table.from_pylist(batch, schema=schema))
    except QvftError:  # some are OSErrors too
        raise
    except OSError as error:
        raise not_written(error, out) from error
    return count


def _features(conversational: bool, unpaired: bool) -> datasets.Features:
    import datasets

    string = datasets.Value("string")
    text = datasets.List({"role": string, "content": string}) if conversational else string
    texts = (
        {"completion": text, "label": datasets.Value("bool")}
        if unpaired
        else {"chosen": text, "rejected": text}
    )
    images = datasets.List(datasets.Image())
    return datasets.Features({"id": string, "images": images, "prompt": text, **texts})


def _rows(
    samples: Sequence[Sample], conversational: bool, unpaired: bool
) -> Iterator[dict[str, Any]]:
    def text(content: str, role: str) -> Any:
        return [{"role": role, "content": content}] if conversational else content

    def row(sample: Sample, pair: Pair, texts: dict[str, Any]) -> dict[str, Any]:
        prompt = text(pair.question or "", "user")
        return {"id": pair.id, "images": [_image(sample.image)], "prompt": prompt, **texts}

    if not unpaired:
        for sample in samples:
            for pair in sample.pairs:
                chosen, rejected = text(pair.chosen, "assistant"), text(pair.rejected, "assistant")
                yield row(sample, pair, {"chosen": chosen, "rejected": rejected})
        return
    for label in (True, False):
        for sample in samples:
            for pair in sample.pairs:
                completion = text(pair.chosen if label else pair.rejected, "assistant")
                yield row(sample, pair, {"completion": completion, "label": label})


def _image(source: ImageSource) -> dict[str, Any]:
    """The image as `datasets.Image` stores it: the bytes of its file, a generated one as PNG."""
    try:
        if isinstance(source, ImageFile):
            return {"bytes": source.path.read_bytes(), "path": source.path.name}
        if (encoded := getattr(source, "encoded", None)) is not None:
            return {"bytes": encoded(), "path": None}
        stream = io.BytesIO()
        with source.open() as image:
            image.save(stream, "PNG")
    except (OSError, ValueError) as error:  # a ValueError: a zero character in a path
        raise ImageError(
            f"cannot be read ({getattr(error, 'strerror', None) or error})",
            where=source.name,
            expected="an image file",
            do="check the path and the image folder",
        ) from error
    return {"bytes": stream.getvalue(), "path": None}
