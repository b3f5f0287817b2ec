"""Reads the rows of a CSV, TSV, Excel or parquet file strictly: header, cells, line numbers."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qvft.errors import DataError
from qvft.extras import require_package
from qvft.files import read_text

EXCEL = ".xlsx"
PARQUET = ".parquet"
SUFFIXES = (".csv", ".tsv", EXCEL)
"""Of files that a folder has per split."""
_NAMES = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a vertical bar"}
LONGEST_CELL = 1 << 24  # characters; the standard library's own limit is 131,072


def read_rows(
    path: Path, *, skipinitialspace: bool = False
) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]]]:
    """The column names of a file and its rows: (number of the first line, cell by column name).

    The separator of a `.tsv` is a tab, of another file the most frequent of comma, semicolon, tab
    and vertical bar in the header; of an `.xlsx` the first sheet is read, of a data frame's
    `.parquet` lists become JSON. Columns without a name (pandas' index, too) and blank lines are
    left out. Cells are texts, without outer whitespace.

    Raises:
        DataError: no header, a name twice, another number of cells, or a quote that does not end.
    """
    if path.suffix.lower() == EXCEL:
        separator, lines = "\t", _excel_lines(path)
    elif path.suffix.lower() == PARQUET:
        separator, lines = "\t", _parquet_lines(path)
    else:
        text = read_text(path)
        header = text.lstrip("\r\n").partition("\n")[0]
        is_tsv = path.suffix.lower() == ".tsv"
        separator = "\t" if is_tsv else max(_NAMES, key=header.count)
        lines = _lines(text, path, delimiter=separator, skipinitialspace=skipinitialspace)
    number, cells = next(lines, (1, []))
    names = [name.strip() for name in cells]
    for name in names:
        if name and names.count(name) > 1:
            raise DataError(
                f"two columns are called `{name}`",
                where=f"{path}:{number}",
                expected="each name once",
                do="rename or remove one of the two",
            )
    if not any(names):
        raise DataError(
            "no header", where=f"{path}:1", expected="a first line with the columns' names"
        )
    return [name for name in names if _is_named(name)], _rows(lines, names, path, separator)


def _rows(
    lines: Iterator[tuple[int, list[str]]], names: list[str], path: Path, separator: str
) -> Iterator[tuple[int, dict[str, str]]]:
    for number, cells in lines:
        cells = [cell.strip() for cell in cells]
        if not any(cells):
            continue
        if len(cells) < len(names) or any(cells[len(names) :]):
            sign = _NAMES[separator]
            raise DataError(
                f"{len(cells)} cells",
                where=f"{path}:{number}",
                expected=f"{len(names)} as in the header, with {sign} between them",
                do=f"put a cell that holds {sign} in double quotes, and write a quote in it twice",
            )
        named = zip(names, cells, strict=False)  # spreadsheets write empty cells after the last
        yield number, {name: cell for name, cell in named if _is_named(name)}


def _lines(text: str, path: Path, **dialect: Any) -> Iterator[tuple[int, list[str]]]:
    """Pairs (number of the first line, cells), of lines that are not blank."""
    limit = csv.field_size_limit(LONGEST_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, **dialect)
    first = 1
    try:
        for cells in reader:
            if cells:
                yield first, cells
            first = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"not a row of CSV ({error})",
            where=f"{path}:{first}",
            expected="a closing double quote, with a separator or the line's end after it",
            do="close the quote, and write a quote in a cell twice",
        ) from error
    finally:
        csv.field_size_limit(limit)


def _excel_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """As `_lines`, of the first sheet of an Excel file."""
    export = "in Excel save it as `CSV UTF-8`, and name that file"
    require_package("openpyxl", wanted_by=str(path), install="qvft[excel]", otherwise=export)
    import openpyxl

    width = 0  # of the header; rows may be cut after their last cell
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        rows = book.worksheets[0].iter_rows(values_only=True)
        for number, cells in enumerate(rows, start=1):
            if any(cell is not None for cell in cells):
                texts = [_text(cell) for cell in cells]
                width = width or len(texts)
                yield number, texts + [""] * (width - len(texts))
    except (zipfile.BadZipFile, openpyxl.utils.exceptions.InvalidFileException, KeyError) as error:
        raise DataError(
            f"not an Excel file ({error})",
            where=str(path),
            expected="a workbook as Excel writes it (.xlsx)",
            do=export,
        ) from error


def _parquet_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """As `_lines`, of a table without nested columns; rows are counted from 2."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    yield 1, table.column_names
    for number, row in enumerate(table.to_pylist(), start=2):
        yield number, [_text(cell) for cell in row.values()]


def holds_images(path: Path) -> bool:
    """Whether a parquet file has columns of bytes or structs, as datasets with their images do."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = [getattr(one, "value_type", one) for one in pq.read_schema(path).types]  # of lists
    nested = (pa.types.is_struct, pa.types.is_binary, pa.types.is_large_binary)
    return any(is_nested(one) for one in types for is_nested in nested)


def _text(cell: Any) -> str:
    """A cell as text; whole numbers without `.0`, lists as JSON."""
    if cell is None or cell != cell:  # NaN, as pandas writes an empty cell
        return ""
    if isinstance(cell, list):
        return json.dumps(cell, ensure_ascii=False)
    return str(int(cell) if isinstance(cell, float) and cell.is_integer() else cell)


def _is_named(name: str) -> bool:
    return bool(name) and not name.startswith(("Unnamed: ", "__index_level_"))
