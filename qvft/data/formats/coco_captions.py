"""The official COCO captions layout: `images` and `annotations` in one JSON file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from qvft.data.formats import fields
from qvft.data.formats.format import Format
from qvft.data.formats.path_guard import PathGuard
from qvft.data.formats.sample_builder import SampleBuilder, Unique, existing, folder, no_split
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
    allow_paths_outside_root: bool = False,
) -> Iterator[Sample]:
    """Samples in the file's image order; images without a caption are skipped and counted.

    Args:
        path: the JSON file, or a folder with `annotations/captions_{split}.json` and `{split}/`.
        split: `train2014`, `val2017`, ...; of a single file it is only a label.
        images: the image folder; None: `{split}/` of the folder, or beside a single file.
        allow_paths_outside_root: images may lie outside that folder.

    Raises:
        DataError: a record is broken, an id is used twice, or an annotation's `image_id` is no
            image's id.
    """
    file, pictures = existing(path), images or path.parent
    if path.is_dir():
        file = path / "annotations" / f"captions_{split}.json"
        pictures = images or path / f"{split}"
        if split is None or not file.exists():
            known = (path / "annotations").glob("captions_*.json")
            raise no_split(
                split, where=str(path), splits=[name.stem[len("captions_") :] for name in known]
            )
    inside = PathGuard(
        folder(pictures, what="the images"), allow_paths_outside_root=allow_paths_outside_root
    )
    content = read_json(file)
    found: dict[str, SampleBuilder] = {}
    image_ids, annotation_ids = Unique("id"), Unique("id")
    for where, row in fields.section(content, "images", path=file):
        name = fields.identifier(fields.field(row, "id", where=where), "id", where=where)
        image_ids.add(name, where=where)
        written = fields.field(row, "file_name", where=where)
        file_name = fields.text(written, "file_name", where=where)
        found[name] = SampleBuilder(name, inside.image(file_name, "file_name", where=where))
    for where, row in fields.section(content, "annotations", path=file):
        if "id" in row:
            annotation_ids.add(fields.identifier(row["id"], "id", where=where), where=where)
        image_id = fields.field(row, "image_id", where=where)
        name = fields.identifier(image_id, "image_id", where=where)
        if name not in found:
            raise DataError(
                f"`image_id` {name} is not the id of an image",
                where=where,
                expected="an id in `images`",
                do="add the image, or remove the annotation",
            )
        caption = fields.field(row, "caption", where=where)
        found[name].captions.append(fields.text(caption, "caption", where=where))
    without = [gathered.id for gathered in found.values() if not gathered.captions]
    if without:
        _log.warning(
            "%s: %d of %d images have no caption and are left out, first %s",
            file,
            len(without),
            len(found),
            without[0],
        )
    yield from (gathered.sample() for gathered in found.values() if gathered.captions)


FORMAT = Format(
    "coco_captions",
    "official COCO caption files",
    read,
    ("split", "images", "allow_paths_outside_root"),
)
