"""Keeps image paths inside the dataset's folder: refuses path traversal."""

from __future__ import annotations

import os
from pathlib import Path

from qvft.data.formats.image_path import image_path, path_problem
from qvft.data.sample import ImageFile
from qvft.errors import DataError


class PathGuard:
    """Resolves image files and refuses paths outside the given folders.

    A path can leave a folder by `..`, by being absolute, or by a symbolic link; a folder that is
    itself a link is resolved.

    Args:
        folders: the image folder, or several; relative paths are relative to the first.
        allow_paths_outside_root: let every path pass.
    """

    def __init__(self, *folders: Path, allow_paths_outside_root: bool = False) -> None:
        self._folders = folders
        self._roots = [os.path.join(os.path.realpath(folder), "") for folder in folders]
        self._allow_outside = allow_paths_outside_root
        self._real: dict[str, str] = {}

    def image(self, written: str, key: str, *, where: str) -> ImageFile:
        """The image named by a row's value of `key`, see `image_path`.

        Raises:
            DataError: it is a URL or otherwise not a path, or as `file`.
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
        if not self._allow_outside:
            real = self._resolved(path)
            if not any(real.startswith(root) for root in self._roots):
                raise DataError(
                    f"the image {str(path)!r} lies outside {self._folders[0].absolute()}",
                    where=where,
                    expected="images in this folder, also where links lead",
                    do="name their own folder with `images`, or, where you trust the data, set "
                    "`allow_paths_outside_root: true` beside `path` (of qvft.convert: "
                    "`--allow-outside`)",
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
