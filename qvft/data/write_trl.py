"""Writes pairs as a parquet file with trl's preference columns, which `format: hf` reads back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from qvft.data.sample import ImageFile, Sample
from qvft.data.write_jsonl import encoded_image
from qvft.disk import not_written
from qvft.errors import DataError, QvftError
from qvft.files import new_file, require_new

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

    Raises DataError without pairs, ImageError if an image cannot be read.
    """
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not any(sample.pairs for sample in samples):
        raise DataError(
            "no pairs", expected="pairs of a chosen and a rejected text", do="write JSONL instead"
        )
    require_new(out)
    string = datasets.Value("string")
    text = datasets.List({"role": string, "content": string}) if conversational else string
    texts = (
        {"completion": text, "label": datasets.Value("bool")}
        if unpaired
        else {"chosen": text, "rejected": text}
    )
    images = datasets.List(datasets.Image())
    schema = datasets.Features(
        {"id": string, "images": images, "prompt": text, **texts}
    ).arrow_schema
    count = 0
    try:
        with new_file(out) as partial, pq.ParquetWriter(partial, schema) as writer:
            rows = _rows(samples, conversational, unpaired)
            while batch := list(islice(rows, _ROWS_AT_ONCE)):
                writer.write_table(pa.Table.from_pylist(batch, schema=schema))
                count += len(batch)
    except QvftError:  # some are OSErrors too
        raise
    except OSError as error:
        raise not_written(error, out) from error
    return count


def _rows(
    samples: Sequence[Sample], conversational: bool, unpaired: bool
) -> Iterator[dict[str, Any]]:
    def text(content: str, role: str = "assistant") -> Any:
        return [{"role": role, "content": content}] if conversational else content

    for label in (True, False) if unpaired else (None,):
        for sample, pair in ((one, pair) for one in samples for pair in one.pairs):
            if label is None:
                texts = {"chosen": text(pair.chosen), "rejected": text(pair.rejected)}
            else:
                completion = text(pair.chosen if label else pair.rejected)
                texts = {"completion": completion, "label": label}
            name = sample.image.path.name if isinstance(sample.image, ImageFile) else None
            image = {"bytes": encoded_image(sample.image)[0], "path": name}  # a `datasets.Image`
            prompt = text(pair.question or "", "user")
            yield {"id": pair.id, "images": [image], "prompt": prompt, **texts}
