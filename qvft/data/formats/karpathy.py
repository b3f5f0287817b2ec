"""Karpathy's splits: `dataset_coco.json`, `dataset_flickr30k.json`, `dataset_flickr8k.json`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from qvft.data.formats import fields
from qvft.data.formats.format import Format
from qvft.data.formats.path_guard import PathGuard
from qvft.data.formats.sample_builder import Unique, existing, folder, no_split
from qvft.data.sample import Sample
from qvft.json_files import read_json


def read(
    path: Path,
    *,
    split: str | None = None,
    images: Path | None = None,
    allow_paths_outside_root: bool = False,
) -> Iterator[Sample]:
    """Samples of one split or several, in the file's order.

    A sample's id is `cocoid` if present (`image_id` in COCO's evaluator), otherwise `imgid`.

    Args:
        path: the JSON file.
        split: `train`, `restval`, `val` or `test`; `train+restval` takes both.
        images: the image folder, which `filepath` (COCO's `val2014`) and `filename` are relative
            to; None: the file's own.
        allow_paths_outside_root: images may lie outside that folder.

    Raises:
        DataError: a record is broken, an id is used twice, or there is no such split.
    """
    pictures = folder(images or existing(path).parent, what="the images")
    inside = PathGuard(pictures, allow_paths_outside_root=allow_paths_outside_root)
    wanted = {part.strip() for part in split.split("+")} if split else set()
    seen: set[str] = set()
    ids = Unique("id")
    for where, row in fields.section(read_json(path), "images", path=path):
        named = fields.text(fields.field(row, "split", where=where), "split", where=where)
        seen.add(named)
        if named not in wanted:
            continue
        key = "cocoid" if "cocoid" in row else "imgid"
        name = fields.identifier(fields.field(row, key, where=where), key, where=where)
        ids.add(name, where=where)
        file = fields.text(fields.field(row, "filename", where=where), "filename", where=where)
        below = fields.text(row["filepath"], "filepath", where=where) if "filepath" in row else ""
        captions = []
        sentences = fields.field(row, "sentences", where=where)
        for place, sentence in fields.records(
            sentences, where=f"{where}, sentences", example='{"raw": "A dog."}'
        ):
            raw = fields.field(sentence, "raw", where=place)
            captions.append(fields.text(raw, "raw", where=place))
        image = inside.image(f"{below}/{file}" if below else file, "filename", where=where)
        yield Sample(name, image, tuple(captions))
    if not wanted or wanted - seen:
        missing = "+".join(sorted(wanted - seen)) or None
        raise no_split(missing, where=str(path), splits=seen)


FORMAT = Format(
    "karpathy",
    "dataset_coco.json, dataset_flickr30k.json, dataset_flickr8k.json",
    read,
    ("split", "images", "allow_paths_outside_root"),
)
