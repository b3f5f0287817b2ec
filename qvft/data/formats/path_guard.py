"""Resolves image paths of a dataset; refuses or logs those outside its folder (path traversal)."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from qvft.data.sample import ImageFile
from qvft.errors import DataError
from qvft.log import get_logger

_log = get_logger(__name__)

_CONTROL = re.compile(r"[\x00-\x1f]")
_DRIVE = re.compile(r"[A-Za-z]:[/\\]")
_LOCAL_FILES = "/data/local-files/"
"""Label Studio's URL of a local file: `/data/local-files/?d=img%201.png`."""


class PathGuard:
    """Resolves image files, and watches for paths outside the given folders.

    A path can leave a folder by `..`, by being absolute, or by a symbolic link; a folder that is
    itself a link is resolved.

    Args:
        folders: the image folder, or several; relative paths are relative to the first.
        allow_paths_outside_root: whether others pass; None: they do, and the first is logged.
    """

    def __init__(self, *folders: Path, allow_paths_outside_root: bool | None = None) -> None:
        self._folders = folders
        self._roots = tuple(os.path.join(os.path.realpath(one), "") for one in folders)
        self._allow_outside = allow_paths_outside_root
        self._real: dict[str, str] = {}

    def image(self, written: str, key: str, *, where: str) -> ImageFile:
        """The image named by a row's value of `key`, see `image_path`.

        Raises DataError if it is a URL or otherwise not a path, or as `file`.
        """
        if problem := path_problem(written):
            given, do = problem
            raise DataError(
                f"`{key}` {given}",
                where=where,
                expected="a path from the image folder, e.g. img/1.png",
                do=do,
            )
        return self.file(image_path(self._folders[0], written), where=where)

    def file(self, path: Path, *, where: str) -> ImageFile:
        """The image at a path, joined to its folder. Raises DataError if it is outside."""
        if self._allow_outside or self._resolved(path).startswith(self._roots):
            return ImageFile(path)
        given = f"the image {str(path)!r} lies outside {self._folders[0].absolute()}"
        if self._allow_outside is False:
            raise DataError(
                given,
                where=where,
                expected="images in this folder, also where links lead",
                do="name their own folder with `images`, or, where you trust the data, set "
                "`allow_paths_outside_root: true` beside `path`",
            )
        self._allow_outside = True
        _log.info(
            "%s: %s; such images are read (allow_paths_outside_root: false refuses them)",
            where,
            given,
        )
        return ImageFile(path)

    def _resolved(self, path: Path) -> str:
        """The path without links; folders are cached, since many images share one."""
        above, name = os.path.split(path)
        if name == ".." or os.path.islink(path):
            return os.path.realpath(path)
        if above not in self._real:
            self._real[above] = os.path.realpath(above)
        return os.path.join(self._real[above], name)


def path_problem(written: str) -> tuple[str, str] | None:
    """What is wrong with an image path and what to do, None if nothing is.

    Backslashes are accepted as separators (Windows), and Label Studio's URLs of local files too.
    """
    if "://" in written and _label_studio(written) is None:
        return "is a URL", "download it"
    if written.startswith("data:"):
        return "holds the image itself", "write it to a file"
    if _CONTROL.search(_label_studio(written) or written):  # "img\new.png" has a line break
        return "has a control character, as a backslash makes it", "write / between folders"
    if _DRIVE.match(written) and os.name != "nt":
        return "is a path of a Windows drive", "put the images next to the file"
    return None


def image_path(folder: Path, written: str) -> Path:
    """The file that `written` names; relative paths are relative to `folder`.

    The first of these that exists: the name as written, with / for every backslash (Windows),
    percent-decoded (label tools), and Label Studio's `?d=`. If none exists, the last that applies,
    but without percent-decoding.
    """
    asked = _label_studio(written)
    if asked is not None:
        return _place(folder, asked.replace("\\", "/"))
    plain = _place(folder, written.replace("\\", "/"))
    if "\\" in written and os.path.lexists(literal := _place(folder, written)):
        return literal
    if "%" in written and not os.path.lexists(plain):
        decoded = _place(folder, unquote(written).replace("\\", "/"))
        if os.path.lexists(decoded):
            return decoded
    return plain


def _label_studio(written: str) -> str | None:
    """Path after `?d=` of a local file URL of Label Studio, None for anything else."""
    if _LOCAL_FILES not in written:
        return None
    parts = urlsplit(written)
    named = parse_qs(parts.query).get("d", [])
    return named[0] if parts.path == _LOCAL_FILES and named else None


def _place(folder: Path, written: str) -> Path:
    """A path joined to its folder, normalised.

    `..` of a symbolic link is resolved as the operating system does.
    """
    base = os.path.realpath(folder) if ".." in written else folder
    return Path(os.path.normpath(os.path.join(base, written)))
