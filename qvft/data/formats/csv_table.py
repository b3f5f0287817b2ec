"""CSV, TSV and Excel: one row per text, or per image, with columns found by name."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from qvft.data.formats import columns as table
from qvft.data.formats import fields, jsonl
from qvft.data.formats.class_folders import CLASS, DEFAULT_TEXTS, checked_texts, class_text
from qvft.data.formats.csv_rows import SUFFIXES, read_rows
from qvft.data.formats.fields import Record
from qvft.data.formats.format import Format
from qvft.data.formats.path_guard import PathGuard
from qvft.data.formats.sample_builder import file_of_split
from qvft.data.sample import Sample
from qvft.errors import DataError
from qvft.log import get_logger

_log = get_logger(__name__)

DEFAULTS: dict[str, tuple[str, ...]] = {
    key: names for key, names in table.DEFAULTS.items() if key not in ("completion", "label")
} | {
    "image": (
        *table.DEFAULTS["image"],
        *("file_name", "filename", "file", "path", "file_path", "filepath", "image_file", "photo"),
    ),
    "caption": (*table.DEFAULTS["caption"], "description"),
    "class": ("class", "label", "category", "class_name"),
}
"""As `columns.DEFAULTS`, with the names that tables have; upper and lower case are equal."""

_LISTS = ("captions", "answers")
_TEXT_KEYS = ("caption", "captions", "question", "chosen")


def read(
    path: Path,
    *,
    split: str | None = None,
    images: Path | None = None,
    columns: Mapping[str, str] | None = None,
    class_texts: Mapping[str, str] | None = None,
    allow_paths_outside_root: bool | None = None,
) -> Iterator[Sample]:
    """Samples in order of first appearance of their images; rows of the same image are merged.

    A column of classes makes the texts of `class_folders` if `columns` names it, `class_texts` is
    given, or there is no other column of texts; then other texts are not read. Columns that hold no
    text are metadata: of the question or the pair where a row has one, otherwise of the image if
    all its rows agree. Ids are those of the custom JSONL.

    Args:
        path: the file, or a folder that holds `{split}.csv`, `.tsv` or `.xlsx`.
        columns: from the keys of `DEFAULTS` to column names, see `columns.resolve`.
    """
    file = file_of_split(path, split, SUFFIXES)
    names, rows = read_rows(file)
    columns = dict(columns or {})
    fields.known_keys(columns, DEFAULTS, where=f"{file}, columns")
    by_case = {name.casefold(): name for name in names}
    defaults = {
        key: tuple(by_case[one] for one in tried if one in by_case) or tried
        for key, tried in DEFAULTS.items()
    }
    classes = _class_column(columns, names, defaults, asked=bool(class_texts), where=str(file))
    columns.pop("class", None)
    del defaults["class"]
    texts: Mapping[str, str] = {}
    if classes:
        texts = checked_texts(class_texts or DEFAULT_TEXTS, where=f"{file}, class_texts")
        columns |= {key: classes for key in texts}
        columns |= {"answer": classes} if "question" in texts else {}
    found = table.resolve(columns, names, where=str(file), defaults=defaults)
    of_text = {*found.values(), *(name for name in columns.values() if name)}
    further = [name for name in names if name not in of_text]
    guard = PathGuard(images or file.parent, allow_paths_outside_root=allow_paths_outside_root)
    records = [_record(f"{file}:{number}", cells, found, further) for number, cells in rows]
    if classes:
        records = [_of_class(row, classes, texts) for row in records]
    _agree(records, where=str(file))
    yield from jsonl.merged(
        (row, guard.image(row["image"], found["image"], where=row.where), row["image"])
        for row in records
    )


def _class_column(
    columns: Mapping[str, str],
    names: Collection[str],
    defaults: Mapping[str, tuple[str, ...]],
    *,
    asked: bool,
    where: str,
) -> str | None:
    """The column of classes, None if none is to be read."""
    named = columns.get("class")
    if named:
        table.require_column("class", named, names, where=where)
    texts = [name for key in _TEXT_KEYS for name in (columns.get(key), *defaults[key])]
    if named is None and (asked or not any(name in names for name in texts)):
        named = next((name for name in defaults["class"] if name in names), None)
        if named is None and asked:
            raise DataError(
                f"`class_texts`, but no column of classes (columns: {', '.join(names)})",
                where=where,
                do="set `columns.class`",
            )
    return named or None


def _of_class(row: Record, column: str, texts: Mapping[str, str]) -> Record:
    """A row whose text cells hold its class, with the texts of the class."""
    cell = next(row[key] for key in texts)
    name, made = class_text(cell), dict(row)
    if "question" in texts:
        made |= {"question": texts["question"], "answer": name}
    if "caption" in texts:
        made["caption"] = texts["caption"].replace(CLASS, name)
    return Record(made | {"meta": row["meta"] | {"class": cell}}, row.where)


def _record(
    where: str, cells: Mapping[str, str], found: Mapping[str, str], further: list[str]
) -> Record:
    """A row with the keys of the custom JSONL; cells that are empty have none."""
    row: dict[str, Any] = {}
    for key, column in found.items():
        if cells[column]:
            is_list = key in _LISTS
            row[key] = _texts(cells[column], column, where) if is_list else cells[column]
    types = {key: row.pop(key) for key in ("answer_type", "question_type") if key in row}
    if "prompt" in row:  # the question of a pair
        row["question"] = row.pop("prompt")
    if "image" not in row:
        fields.text("", found["image"], where=where)
    _require_texts(row, cells, found, where=where)
    meta = {name: cells[name] for name in further if cells[name]}
    is_pair = "chosen" in row
    if not is_pair and "question" not in row:
        types = {}
    return Record(row | {"meta": meta | types}, where)


def _require_texts(
    row: dict[str, Any], cells: Mapping[str, str], found: Mapping[str, str], *, where: str
) -> None:
    """Raises DataError for a row without text, or with half a question or pair."""
    halves = [("chosen", "rejected")]
    if "chosen" not in row:  # otherwise the question is that of a pair
        halves.append(("question", "answers" if "answers" in found else "answer"))
    for key, other in (*halves, *(half[::-1] for half in halves)):
        if key in row and key in found and other in found and other not in row:
            fields.text("", found[other], where=where)
    if not row.keys() & set(_TEXT_KEYS):
        columns = [found[key] for key in _TEXT_KEYS if key in found]
        fields.text("", columns[0], where=where)
    for key in row:
        fields.valid_unicode(row[key], found.get(key, key), where=where)


def _texts(cell: str, column: str, where: str) -> list[Any]:
    """The texts of a cell: a JSON list, or one text."""
    if not cell.startswith("["):
        return [cell]
    try:
        texts = json.loads(cell)
    except ValueError as error:
        raise DataError(
            f"`{column}` begins with [ but is no JSON list",
            where=where,
            expected="one text, or a list of texts",
            do='write ["...", "..."]; in CSV each quote twice, and quotes around the cell',
        ) from error
    return list(fields.answers(texts, column, where=where))


def _agree(records: list[Record], *, where: str) -> None:
    """Removes an image's metadata on which its rows differ, and counts it."""
    seen: dict[str, dict[str, str]] = {}
    differing: set[tuple[str, str]] = set()
    own = [row for row in records if "question" not in row and "chosen" not in row]
    for row in own:
        known = seen.setdefault(row["image"], {})
        for key, value in row["meta"].items():
            if known.setdefault(key, value) != value:
                differing.add((row["image"], key))
    for row in own:
        for key in [key for key in row["meta"] if (row["image"], key) in differing]:
            del row["meta"][key]
    if differing:
        _log.warning(
            "%s: rows of one image differ in %s; left out of the metadata of %d images",
            where,
            ", ".join(sorted({key for _, key in differing})),
            len({image for image, _ in differing}),
        )


FORMAT = Format(
    "csv",
    "CSV, TSV and Excel, columns by name",
    read,
    ("split", "images", "columns", "class_texts", "allow_paths_outside_root"),
)
