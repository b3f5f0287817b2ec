"""Karpathy's splits: `dataset_coco.json`, `dataset_flickr30k.json`, `dataset_flickr8k.json`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from qvft.data.formats import fields
from qvft.data.formats.format import IMAGE_OPTIONS, Format
from qvft.data.formats.path_guard import PathGuard
from qvft.data.formats.sample_builder import Unique, existing, image_folder, no_split
from qvft.data.sample import Sample
from qvft.json_files import read_json


def read(
    path: Path,
    *,
    split: str | None = None,
    images: Path | None = None,
    allow_paths_outside_root: bool | None = None,
) -> Iterator[Sample]:
    """Samples of one split or several, in the file's order.

    A sample's id is `cocoid` if present (`image_id` in COCO's evaluator), otherwise `imgid`.

    Args:
        path: the JSON file.
        split: `train`, `restval`, `val` or `test`; `train+restval` takes both.
        images: the image folder, which `filepath` (COCO's `val2014`) and `filename` are relative
            to; None: the file's own.
    """
    guard = PathGuard(
        image_folder(images or existing(path).parent),
        allow_paths_outside_root=allow_paths_outside_root,
    )
    requested = {part.strip() for part in split.split("+")} if split else set()
    present: set[str] = set()
    ids = Unique("id")
    for where, row in fields.section(read_json(path), "images", path=path):
        present.add(row.text("split"))
        if row.text("split") not in requested:
            continue
        name = row.identifier("cocoid" if "cocoid" in row else "imgid")
        ids.add(name, where=where)
        file = row.text("filename")
        if "filepath" in row:
            file = f"{row.text('filepath')}/{file}"
        sentences = row.records("sentences", example='{"raw": "A dog."}')
        captions = tuple(sentence.text("raw") for _, sentence in sentences)
        yield Sample(name, guard.image(file, "filename", where=where), captions)
    if not requested or requested - present:
        missing = "+".join(sorted(requested - present)) or None
        raise no_split(missing, where=str(path), splits=present)


FORMAT = Format(
    "karpathy",
    "dataset_coco.json, dataset_flickr30k.json, dataset_flickr8k.json",
    read,
    IMAGE_OPTIONS,
)
