"""Resolves an image name of a dataset to a file: one rule for all formats."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

_CONTROL = re.compile(r"[\x00-\x1f]")
_DRIVE = re.compile(r"[A-Za-z]:[/\\]")
_LOCAL_FILES = "/data/local-files/"
"""What Label Studio calls a file of its document root: `/data/local-files/?d=img%201.png`."""


def path_problem(written: str) -> tuple[str, str] | None:
    """What is wrong with an image path as data gives it and what to do, None if nothing is.

    Backslashes are no problem: they separate folders, as on Windows. Nor are the URLs that Label
    Studio writes for files of the disk.
    """
    if "://" in written and _label_studio(written) is None:
        return "is a URL", "download it"
    if written.startswith("data:"):
        return "holds the image itself", "write it to a file"
    if _CONTROL.search(written):  # "img\new.png" holds a line break
        return "has a control character, as a backslash makes it", "write / between folders"
    if _DRIVE.match(written) and os.name != "nt":
        return "is a path of a Windows drive", "put the images beside the file"
    return None


def image_path(folder: Path, written: str) -> Path:
    """The file that `written` means; relative paths begin in `folder`.

    The first of these that is there: the name as it stands, with / for every backslash (Windows),
    with %20 and the like decoded (label tools), and what Label Studio's `?d=` names. If none is,
    the last that applies, except that a % alone is left as it stands.
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
    """What stands behind `?d=` of one of Label Studio's local files, None for anything else."""
    if _LOCAL_FILES not in written:
        return None
    parts = urlsplit(written)
    named = parse_qs(parts.query).get("d", [])
    return named[0] if parts.path == _LOCAL_FILES and named else None


def _place(folder: Path, written: str) -> Path:
    """A path joined to its folder; the same for every way to write it.

    Steps out of a folder that is a link lead out of the folder itself, as the system takes them.
    """
    base = os.path.realpath(folder) if ".." in written else folder
    return Path(os.path.normpath(os.path.join(base, written)))
