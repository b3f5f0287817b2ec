"""Resolves an image name of a dataset to a file: one rule for all formats."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

_CONTROL = re.compile(r"[\x00-\x1f]")
_DRIVE = re.compile(r"[A-Za-z]:[/\\]")
_LOCAL_FILES = "/data/local-files/"
"""Label Studio's URL of a local file: `/data/local-files/?d=img%201.png`."""


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
        return "is a path of a Windows drive", "put the images beside the file"
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
