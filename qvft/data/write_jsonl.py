"""Writes samples as the custom JSONL, which `formats.jsonl` reads back unchanged."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from PIL import Image

from qvft.data.formats.path_guard import path_problem
from qvft.data.images.suppress_warnings import quiet_pillow
from qvft.data.sample import ImageFile, ImageSource, Sample
from qvft.disk import not_written
from qvft.errors import DataError, ImageError, QvftError
from qvft.files import new_file, new_folder, require_new
from qvft.log import get_logger

_log = get_logger(__name__)

_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "JPEG2000": ".jp2", "TIFF": ".tif"}
_LONGEST_STEM = 60  # characters, of up to four bytes each; file names may have 255 bytes


def write_jsonl(samples: Sequence[Sample], out: Path, *, copy_images: bool = False) -> int:
    """Writes one line per sample, atomically; returns the number of image files written.

    Image paths are relative to `out`'s folder. The folder `{stem of out}_images` next to it gets
    every image that a line cannot reference: one without a file (its bytes unchanged, generated
    ones as PNG), one of an earlier sample (lines of one image would be merged), and one whose path
    cannot be written in a line.

    Args:
        samples: samples with unique ids.
        out: a new file.
        copy_images: copy image files into the folder too, so that it can be moved with `out`.

    Raises:
        DataError: `out`, or a needed image folder, exists or is not writable; or a sample's meta is
            not JSON.
        ImageError: no image exists, an image to copy cannot be read, or its path is invalid.
    """
    paths = [None] * len(samples) if copy_images else _paths(samples, folder=out.parent)
    require_new(out)
    pictures = out.with_name(f"{out.stem}_images")
    names: set[str] = set()
    try:
        with (
            new_file(out) as partial,
            new_folder(pictures) if None in paths else contextlib.nullcontext(pictures) as folder,
            partial.open("w", encoding="utf-8", newline="\n") as stream,
        ):
            for sample, path in zip(samples, paths, strict=True):
                if path is None:
                    content, suffix = encoded_image(sample.image)
                    name = _file_name(sample.id, suffix, names)
                    (folder / name).write_bytes(content)
                    names.add(name.casefold())
                    path = f"{pictures.name}/{name}"
                stream.write(_line(sample, path) + "\n")
    except QvftError:  # some are OSErrors too
        raise
    except OSError as error:
        raise not_written(error, out) from error
    return len(names)


def _line(sample: Sample, image: str) -> str:
    questions = [
        {
            "id": one.id,
            "question": one.text,
            "answers": one.answers,
            **({"candidates": one.candidates} if one.candidates else {}),
            "meta": dict(one.meta),
        }
        for one in sample.questions
    ]
    pairs = [asdict(one) for one in sample.pairs]
    row = {
        "id": sample.id,
        "image": image,
        "captions": sample.captions,
        "questions": questions,
        **({"pairs": pairs} if pairs else {}),
        "meta": dict(sample.meta),
    }
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError, RecursionError) as error:
        what = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise DataError(
            f"cannot be written as JSON ({what})",
            where=f"sample {sample.id}",
            expected="texts, numbers, lists and objects in its meta",
            do="correct or remove what is none of these",
        ) from error


def _paths(samples: Sequence[Sample], *, folder: Path) -> list[str | None]:
    """Each image file's path relative to `folder`, without links in it; None if a line cannot
    reference it."""
    start = os.path.realpath(folder)
    resolved: dict[Path, str] = {}
    used: set[str] = set()
    paths: list[str | None] = []
    absent: list[Path] = []
    for image in (sample.image for sample in samples):
        path = None
        if isinstance(image, ImageFile):
            absent += [] if os.path.exists(image.path) else [image.path]
            above = image.path.parent
            real = resolved.setdefault(above, os.path.realpath(above))
            path = Path(os.path.relpath(os.path.join(real, image.path.name), start)).as_posix()
            if path in used or not _reads_back(path):
                path = None
            else:
                used.add(path)
        paths.append(path)
    if absent and len(absent) == len(samples):
        raise ImageError(
            f"no such file, nor any other of {len(samples)} images",
            where=str(absent[0].absolute()),
            expected="images where the data says",
            do="check the paths in the data; where the format takes it, name the image folder with "
            "--images",
        )
    if absent:
        _log.warning(
            "images that are not where the data says: %d of %d, first %s",
            len(absent),
            len(samples),
            absent[0].absolute(),
        )
    return paths


def _reads_back(path: str) -> bool:
    """Whether a line with `path` is read back as that path."""
    is_text = path.encode(errors="replace").decode() == path
    return is_text and path == path.strip() and "\\" not in path and path_problem(path) is None


def encoded_image(source: ImageSource) -> tuple[bytes, str]:
    """An image as a file, its bytes unchanged, a generated one as PNG; and the file's suffix.
    Raises ImageError if it cannot be read.
    """
    try:
        if isinstance(source, ImageFile):
            return source.path.read_bytes(), source.path.suffix
        if (encoded := getattr(source, "encoded", None)) is not None:
            content = encoded()
            return content, _suffix(content)
        stream = io.BytesIO()
        with source.open() as image:
            image.save(stream, "PNG")
    except ImageError:
        raise
    except (OSError, ValueError) as error:  # a ValueError: a zero character in a path
        raise ImageError(
            f"cannot be read ({getattr(error, 'strerror', None) or error})",
            where=source.name,
            expected="an image file",
            do="check the path and the image folder",
        ) from error
    return stream.getvalue(), ".png"


def _file_name(id: str, suffix: str, taken: set[str]) -> str:
    suffix = suffix if re.fullmatch(r"\.\w{1,10}", suffix) else ""
    stem = re.sub(r"[^\w.-]+", "_", id.removesuffix(suffix)).strip("._")[:_LONGEST_STEM] or "image"
    name, number = stem + suffix, 1
    while name.casefold() in taken:
        number += 1
        name = f"{stem}-{number}{suffix}"
    return name


def _suffix(content: bytes) -> str:
    """Suffix for an image's bytes, `.bin` if they are not an image."""
    try:
        with quiet_pillow(), Image.open(io.BytesIO(content)) as image:
            kind = str(image.format)
    except Exception:  # on a broken header Pillow can raise nearly anything; the bytes are kept
        return ".bin"
    return _SUFFIXES.get(kind, f".{kind.lower()}")
