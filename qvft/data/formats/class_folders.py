"""Class folders as ImageNet and torchvision have them: CLASS/1.jpg or SPLIT/CLASS/1.jpg."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from qvft.data.formats import fields
from qvft.data.formats.format import Format
from qvft.data.formats.path_guard import PathGuard
from qvft.data.formats.sample_builder import existing, no_split
from qvft.data.images.listing import images_among
from qvft.data.sample import ImageFile, Question, Sample
from qvft.errors import DataError
from qvft.log import get_logger

_log = get_logger(__name__)

ROLES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Names of folders that are splits, not classes, and which of three files their images go to."""
DEFAULT_TEXTS = {"question": "What is it?"}
CLASS = "{class}"


def read(
    path: Path,
    *,
    split: str | None = None,
    class_texts: Mapping[str, str] | None = None,
    allow_paths_outside_root: bool | None = None,
) -> Iterator[Sample]:
    """Samples by class, then by path; a class's name is the answer to a question, or in a caption.

    A class's name is its folder's with blanks for underscores; the folder's is the sample's meta
    `class`. Images may lie deeper in a class's folder. Hidden files are ignored; other files that
    are no images, and images outside of class folders, are left out and counted.

    Args:
        path: the folder of the class folders, or of the splits.
        split: the folder of the split; None if there are no splits.
        class_texts: `question`, whose answer is the class's name, `caption`, which holds `{class}`,
            or both; None: `DEFAULT_TEXTS`.

    Raises:
        DataError: no such split, fewer than two classes, or invalid `class_texts`.
    """
    texts = checked_texts(class_texts or DEFAULT_TEXTS, where=f"{path}, class_texts")
    folder = _split_folder(existing(path), split)
    classes = class_names(folder)
    if len(classes) < 2:
        raise DataError(
            f"{len(classes) or 'no'} class folder{'s' * (len(classes) != 1)}",
            where=str(folder),
            expected="a folder per class, two or more",
            do="name the folder above the classes",
        )
    guard = PathGuard(path, allow_paths_outside_root=allow_paths_outside_root)
    left_out, _ = images_among(sorted(one for one in folder.iterdir() if _is_shown(one)))
    empty = []
    for name in classes:
        inside = sorted((folder / name).rglob("*"))
        images, others = images_among(one for one in inside if _is_shown(one, folder))
        left_out += others
        if not images:
            empty.append(name)
        for file in images:
            id = file.relative_to(folder).as_posix()
            image = guard.file(file, where=f"{folder}, class {name}")
            yield _sample(id, name, texts, image)
    if left_out:
        _log.warning(
            "%s: %d files are no images of a class, first %s", folder, len(left_out), left_out[0]
        )
    if empty:
        _log.warning("%s: %d classes have no image, first %s", folder, len(empty), empty[0])


def class_names(folder: Path) -> list[str]:
    """Names of the folders in `folder`, sorted, without hidden ones."""
    return sorted(one.name for one in folder.iterdir() if one.is_dir() and _is_shown(one))


def class_text(name: str) -> str:
    """A class's name as text: blanks for underscores."""
    return " ".join(name.replace("_", " ").split()) or name


def checked_texts(texts: Mapping[str, str], *, where: str) -> Mapping[str, str]:
    """`class_texts`; raises DataError for an unknown key, or a caption without the class."""
    fields.known_keys(texts, ("caption", "question"), where=where)
    for key, text in texts.items():
        fields.text(text, key, where=where)
    if CLASS not in texts.get("caption", CLASS):
        raise DataError(
            f"`caption` without {CLASS}",
            where=where,
            expected=f"a text with {CLASS}, which the class's name replaces",
            do=f"write a photo of a {CLASS}",
        )
    return texts


def _sample(id: str, folder_name: str, texts: Mapping[str, str], image: ImageFile) -> Sample:
    name = class_text(folder_name)
    meta = {"class": folder_name}
    captions = [texts["caption"].strip().replace(CLASS, name)] if "caption" in texts else []
    questions = []
    if "question" in texts:
        questions.append(Question(f"{id}#1", texts["question"].strip(), (name,), meta))
    return Sample(id, image, tuple(captions), tuple(questions), meta)


def _split_folder(path: Path, split: str | None) -> Path:
    if not path.is_dir():
        raise DataError("a file", where=str(path), expected="the folder of the class folders")
    names = class_names(path)
    if split is None and names and all(name.lower() in ROLES for name in names):
        raise no_split(None, where=str(path), splits=names)
    if split is not None and split not in names:
        raise no_split(split, where=str(path), splits=[n for n in names if n.lower() in ROLES])
    return path if split is None else path / split


def _is_shown(path: Path, below: Path | None = None) -> bool:
    parts = path.relative_to(below).parts if below else (path.name,)
    return not any(part.startswith((".", "__MACOSX")) for part in parts)


FORMAT = Format(
    "class_folders",
    "one folder of images per class, as ImageNet has them",
    read,
    ("split", "class_texts", "allow_paths_outside_root"),
)
