"""Reads the rows of a CSV or TSV file strictly: separator, header, cells, line numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from qvft.errors import DataError
from qvft.files import read_text

SUFFIXES = (".csv", ".tsv")
_SEPARATORS = ",;\t|"
_NAMES = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a vertical bar"}
LONGEST_CELL = 1 << 24  # characters; the standard library's own limit is 131,072


def read_rows(path: Path) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]]]:
    """The column names of a file and its rows: (number of the first line, cell by column name).

    The separator of a `.tsv` is a tab, of another file the most frequent of comma, semicolon, tab
    and vertical bar in the header. Columns without a name (pandas' index, too) and blank lines are
    left out. Cells are texts, without outer whitespace.

    Raises:
        DataError: as `read_text`; no header, a name twice, a row with more or fewer cells than the
            header, or a quote that does not end.
    """
    text = read_text(path)
    separator = "\t" if path.suffix.lower() == ".tsv" else _separator(text)
    lines = _lines(text, path, separator)
    number, header = next(lines, (1, []))
    names = [name.strip() for name in header]
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


def _lines(text: str, path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Pairs (number of the first line, cells), of lines that are not blank."""
    limit = csv.field_size_limit(LONGEST_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
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


def _separator(text: str) -> str:
    header = text.lstrip("\r\n").partition("\n")[0]
    return max(_SEPARATORS, key=header.count)


def _is_named(name: str) -> bool:
    return bool(name) and not name.startswith("Unnamed: ")
