"""The official COCO captions layout: `images` and `annotations` in one JSON file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from qvft.data.formats import fields
from qvft.data.formats.format import IMAGE_OPTIONS, Format
from qvft.data.formats.path_guard import PathGuard
from qvft.data.formats.sample_builder import SampleBuilder, Unique, existing, image_folder, no_split
from qvft.data.sample import Sample
from qvft.errors import DataError
from qvft.json_files import read_json
from qvft.log import get_logger

_log = get_logger(__name__)


def read(
    path: Path,
    *,
    split: str | None = None,
    images: Path | None = None,
    allow_paths_outside_root: bool | None = None,
) -> Iterator[Sample]:
    """Samples in the file's image order; images without a caption are skipped and counted.

    Args:
        path: the JSON file, or a folder with `annotations/captions_{split}.json` and `{split}/`.
        split: `train2014`, `val2017`, ...; of a single file it is only a label.
        images: the image folder; None: `{split}/` of the folder, or beside a single file.
    """
    file, folder = existing(path), images or path.parent
    if path.is_dir():
        file = path / "annotations" / f"captions_{split}.json"
        folder = images or path / f"{split}"
        if split is None or not file.exists():
            known = (path / "annotations").glob("captions_*.json")
            splits = [name.stem.removeprefix("captions_") for name in known]
            raise no_split(split, where=str(path), splits=splits)
    guard = PathGuard(image_folder(folder), allow_paths_outside_root=allow_paths_outside_root)
    content = read_json(file)
    found: dict[str, SampleBuilder] = {}
    image_ids, annotation_ids = Unique("id"), Unique("id")
    for where, row in fields.section(content, "images", path=file):
        name = row.identifier("id")
        image_ids.add(name, where=where)
        image = guard.image(row.text("file_name"), "file_name", where=where)
        found[name] = SampleBuilder(name, image)
    for where, row in fields.section(content, "annotations", path=file):
        if "id" in row:
            annotation_ids.add(row.identifier("id"), where=where)
        name = row.identifier("image_id")
        if name not in found:
            raise DataError(
                f"`image_id` {name} is not the id of an image",
                where=where,
                expected="an id in `images`",
                do="add the image, or remove the annotation",
            )
        found[name].captions.append(row.text("caption"))
    without = [one.id for one in found.values() if not one.captions]
    if without:
        _log.warning(
            "%s: %d of %d images have no caption and are skipped, first %s",
            file,
            len(without),
            len(found),
            without[0],
        )
    yield from (one.sample() for one in found.values() if one.captions)


FORMAT = Format("coco_captions", "official COCO caption files", read, IMAGE_OPTIONS)
