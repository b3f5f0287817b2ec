"""Detects the format of a folder or file, and which splits it has."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qvft.data.formats.class_folders import ROLES, class_names
from qvft.data.formats.csv_rows import PARQUET, holds_images
from qvft.data.formats.csv_rows import SUFFIXES as TABLES
from qvft.data.formats.sample_builder import existing
from qvft.data.formats.vqa_rad import FILE as VQA_RAD
from qvft.data.formats.vqa_rad import SPLIT_FILES
from qvft.errors import DataError
from qvft.json_files import read_json, read_jsonl

CLASS_FOLDERS = "class_folders"
METADATA = ("metadata.jsonl", "metadata.csv")


@dataclass(frozen=True)
class Found:
    """A format, its path, and the split that each of train, val and test is read from; `all` is
    data without splits."""

    format: str
    path: Path
    splits: dict[str, str | None] = field(default_factory=lambda: {"all": None})


def detect(path: Path, format: str | None = None) -> Found:
    """What is at `path`; a given format counts, with the splits that are detected for it.

    Raises DataError for nothing that is known, or several files that might be meant.
    """
    if format == CLASS_FOLDERS and path.is_dir():  # texts beside the classes do not count
        return Found(format, path, _splits(class_names(path), alone=True))
    if format is not None:
        with contextlib.suppress(DataError):
            found = detect(path)
            if found.format == format:
                return found
        return Found(format, path)
    return _of_folder(path) if existing(path).is_dir() else _of_file(path)


def role(split: str) -> str | None:
    """`train`, `val` or `test` of a split's name, such as `train2017`; None for others."""
    name = split.lower()
    return ROLES.get(name) or ROLES.get(name.rstrip("0123456789"))


def _of_folder(folder: Path) -> Found:
    if any((folder / name).exists() for name in ("dataset_dict.json", "state.json")):
        return Found("hf", folder, _splits([one.name for one in folder.iterdir() if one.is_dir()]))
    if any(next(folder.glob(pattern), None) for pattern in ("metadata.*", "*/metadata.*")):
        above = [file.parent for name in METADATA for file in folder.glob(f"*/{name}")]
        return Found("hf", folder, _splits([one.name for one in above]))
    captions = sorted(folder.glob("annotations/captions_*.json"))
    if captions:
        names = [one.stem.removeprefix("captions_") for one in captions]
        return Found("coco_captions", folder, _splits(names))
    if (folder / VQA_RAD).exists():
        return Found("vqa_rad", folder, {"train": "train", "test": "test"})
    present = {role: role for role, name in SPLIT_FILES.items() if (folder / name).exists()}
    if "train" in present and _of_file(folder / SPLIT_FILES["train"]).format == "vqa_rad":
        return Found("vqa_rad", folder, {**present})
    answered = sorted(folder.glob("v2_mscoco_*_annotations.json"))
    if answered:
        return Found("vqa_v2", folder, _splits([one.stem.split("_")[2] for one in answered]))
    parquet = sorted(folder.rglob("*.parquet"))
    if parquet:
        names = [one.stem.replace("-", " ").split()[0] for one in parquet]
        return Found("hf", folder, _splits(names))
    texts = [one for one in sorted(folder.iterdir()) if one.suffix in (".json", ".jsonl", *TABLES)]
    if texts:
        return _of_files(folder, texts)
    if class_names(folder):
        return Found(CLASS_FOLDERS, folder, _splits(class_names(folder), alone=True))
    if any(folder.glob("*.tar")):
        return Found("tar", folder)
    raise DataError(
        "no texts and no class folders",
        where=str(folder),
        expected="class folders, a CSV, JSON, JSONL or parquet file, or metadata beside the images",
        do="name the file of the texts, or the format with --format",
    )


def _of_files(folder: Path, texts: list[Path]) -> Found:
    """The texts of a folder: a file, or a file per split."""
    by_role = [one for one in texts if role(one.stem)]
    if len(texts) == 1:
        return _of_file(texts[0])
    if not by_role:
        raise DataError(
            "several files of texts: " + ", ".join(one.name for one in texts[:9]),
            where=str(folder),
            expected="one, or train, val and test",
            do="name one of them",
        )
    splits = _splits([one.stem for one in by_role])
    first = _of_file(by_role[0])
    if first.format in ("slake", "pathvqa", "csv", "jsonl", "llava", "sharegpt"):
        return Found(first.format, folder, splits)
    return first


def _splits(names: list[str], *, alone: bool = False) -> dict[str, str | None]:
    """The split of each role; with `alone` only if there are no other names."""
    found: dict[str, str | None] = {}
    for name in sorted(names):
        if (known := role(name)) is not None:
            found.setdefault(known, name)
        elif alone:
            return {"all": None}
    return found or {"all": None}


def _of_file(file: Path) -> Found:
    suffix = file.suffix.lower()
    if suffix in TABLES:
        return Found("csv", file)
    if suffix == PARQUET:
        return Found("hf" if holds_images(file) else "csv", file)
    if suffix == ".tar":
        return Found("tar", file)
    if suffix not in (".json", ".jsonl"):
        raise DataError(
            f"a file {suffix or 'without extension'}",
            where=str(file),
            expected="a folder, or .csv, .tsv, .xlsx, .json, .jsonl, .parquet or .tar",
            do="save an old Excel file (.xls) as .xlsx, or name the format with --format",
        )
    if suffix == ".jsonl":
        first = next((row for _, row in read_jsonl(file)), {})
        return Found(_of_record(first) or "jsonl", file)
    content = read_json(file)
    format = _of_json(content)
    if format is None:
        raise DataError(
            "JSON of an unknown layout",
            where=str(file),
            expected="COCO captions, Karpathy's file, VQA-RAD, SLAKE, LLaVA or ShareGPT "
            "conversations",
            do="write one object per line with `image` and its texts (.jsonl), or name the format "
            "with --format",
        )
    of_file = [one for one, name in SPLIT_FILES.items() if name == file.name]
    if format == "vqa_rad" and of_file:
        return Found(format, file, dict.fromkeys(of_file))
    if format == "vqa_rad":
        return Found(format, file, {"train": "train", "test": "test"})
    if format == "karpathy":
        inside = {row.get("split") for row in content["images"] if isinstance(row, dict)}
        splits = _splits([name for name in ("train", "val", "test") if name in inside])
        if splits.get("train") and "restval" in inside:
            splits["train"] = "train+restval"
        return Found(format, file, splits)
    return Found(format, file)


def _of_json(content: Any) -> str | None:
    if isinstance(content, dict):
        images, annotations = content.get("images"), content.get("annotations")
        if _first(annotations).keys() >= {"caption", "image_id"}:
            return "coco_captions"
        return "karpathy" if "sentences" in _first(images) else None
    first = _first(content)
    if first.keys() >= {"qid", "phrase_type"}:
        return "vqa_rad"
    if first.keys() >= {"image", "question", "answer"}:
        return "pathvqa"
    return "slake" if first.keys() >= {"qid", "img_name"} else _of_record(first)


def _of_record(row: dict[str, Any]) -> str | None:
    """Format of a record that holds a conversation."""
    if "conversations" in row and "image" in row:
        return "llava"
    return "sharegpt" if row.keys() & {"messages", "conversations"} else None


def _first(rows: Any) -> dict[str, Any]:
    row = rows[0] if isinstance(rows, list) and rows else {}
    return row if isinstance(row, dict) else {}
