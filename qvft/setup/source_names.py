"""Names of data sources, as reports, folders and ids have them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from qvft.errors import RecipeError
from qvft.recipe.schema import Recipe
from qvft.recipe.source import LONGEST_NAME, Source, folder_name_problem


def require_names(recipe: Recipe, which: str) -> None:
    """Raises RecipeError if two sources of a list have the same name."""
    names: set[str] = set()
    for key, source in recipe.data.sources(which):
        name = source_name(source)
        if name in names:
            raise RecipeError(
                f"two sources are called {name}",
                where=f"data.{key}.name",
                do="give each a name of its own",
            )
        names.add(name)


def split_source(recipe: Recipe, which: str) -> Source:
    """The data as one source; of a list it has the joined name, and uses all texts."""
    sources = [source for _, source in recipe.data.sources(which)]
    if not recipe.data.lists(which):
        return sources[0]
    joined = "+".join(source_name(source) for source in sources)
    return Source(format="sources", name=_fitting(joined))


def source_name(source: Source) -> str:
    """Name of a split in reports and folders: DATASET-SPLIT."""
    if source.name:
        return source.name
    path = Path(source.path or source.format)
    stem = path.stem if path.suffix else path.name
    if stem == "..":
        stem = path.resolve().name
    parts = [part for part in (stem or source.format, source.split) if part]
    plain = re.sub(r"[{}*?\[\]=]", "", "-".join(parts))  # for ranges and patterns of shards
    name = re.sub(r"[\s,/\\\x00-\x1f\x7f]", "_", plain).strip(". ")
    return _fitting(name) or source.format


def _fitting(name: str) -> str:
    """The name, if it is short enough for a folder's."""
    if not name or folder_name_problem(name) is None:
        return name
    # A long name is truncated and gets a hash.
    digest = hashlib.sha256(name.encode(errors="replace")).hexdigest()[:8]
    return f"{name[: LONGEST_NAME // 2]}-{digest}"
