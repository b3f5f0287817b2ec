"""Medical questions with answers and predictions: rows of JSON or JSONL, read strictly."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qvft.data.formats import fields
from qvft.errors import DataError
from qvft.evaluation.metrics.llava_med import Candidates
from qvft.evaluation.metrics.medical import AnswerType
from qvft.evaluation.official.reading import identifier, words
from qvft.files import read_text
from qvft.json_files import json_of, jsonl_of, read_json

_TYPES: dict[str, AnswerType] = {"closed": "closed", "open": "open"}
_LONGEST_TYPE = 20
_EXAMPLE = '{"id": ..., "answer_type": ..., "question": ..., "reference": ..., "prediction": ...}'


@dataclass(frozen=True)
class MedicalRow:
    """A question with its right answer and the one that was given; both may be empty."""

    kind: AnswerType
    reference: str
    prediction: str


def read_rows(path: Path) -> tuple[dict[str, MedicalRow], Candidates | None]:
    """The rows by id in the file's order, and the candidates that lie beside them, if any.

    A file is JSONL, a row a line; or JSON: a list of rows, or an object with `rows` and perhaps
    `candidates`.

    Raises:
        DataError: another layout, no row, a row without one of the keys or with another
            `answer_type` than CLOSED or OPEN, or a duplicate id.
    """
    found: dict[str, MedicalRow] = {}
    places: dict[str, str] = {}
    rows, candidates = _layout(read_text(path), path)
    for where, row in rows:
        name = identifier(row, "id", where=where)
        if name in found:
            raise DataError(
                f"`id` {name} occurs twice, first at {places[name]}",
                where=where,
                expected="each id once",
                do="remove one of the two, or give them other ids",
            )
        found[name], places[name] = _row(row, where=where), where
    if not found:
        raise DataError("no rows", where=str(path), expected="at least one", do=f"write {_EXAMPLE}")
    return found, candidates


def read_candidates(path: Path) -> Candidates:
    """The answers of a file in LLaVA-Med's layout, `{"0": [...]}`, or a list.

    Raises:
        DataError: another layout, or no answer.
    """
    return _candidates(read_json(path), where=str(path))


def _layout(text: str, path: Path) -> tuple[Iterator[tuple[str, Any]], Candidates | None]:
    if _is_lines(text, path):
        lines = jsonl_of(text, path)
        return ((f"{path}:{number}", row) for number, row in lines), None
    content = json_of(text, path)
    if isinstance(content, list):
        return fields.records(content, where=str(path), example=_EXAMPLE), None
    rows = fields.section(content, "rows", path=path)
    given = content.get("candidates")
    where = f"{path}, candidates"
    return rows, None if given is None else _candidates(given, where=where)


def _is_lines(text: str, path: Path) -> bool:
    """Whether the first line is a row, or the name says JSONL and it is no object of rows."""
    try:
        first = json.loads(text.lstrip().split("\n", 1)[0])
    except (ValueError, RecursionError):
        return path.suffix == ".jsonl"
    return isinstance(first, dict) and "rows" not in first


def _row(row: Mapping[str, Any], *, where: str) -> MedicalRow:
    written = words(row, "answer_type", where=where)
    kind = _TYPES.get(written.strip().lower())
    words(row, "question", where=where)
    if kind is None:
        shown = f'"{written}"' if len(written) <= _LONGEST_TYPE else "a longer text"
        raise DataError(
            f"`answer_type` is {shown}",
            where=where,
            expected="CLOSED or OPEN",
            do="say which of the two the question is",
        )
    return MedicalRow(
        kind, _answer(row, "reference", where=where), _answer(row, "prediction", where=where)
    )


def _answer(row: Mapping[str, Any], key: str, *, where: str) -> str:
    """An answer as it stands; a whole number is taken as its text."""
    value = fields.field(row, key, where=where)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return fields.string(value, key, where=where)


def _candidates(content: Any, *, where: str) -> Candidates:
    listed = content.get("0") if isinstance(content, dict) else content
    if not isinstance(listed, list) or not listed:
        raise DataError(
            fields.kind(content) if listed else "no candidates",
            where=where,
            expected='{"0": [...]} or a list, with at least one answer',
            do="list the answers that open accuracy may choose from",
        )
    pairs = ({str(number): answer} for number, answer in enumerate(listed))
    return Candidates.of([_answer(pair, str(n), where=where) for n, pair in enumerate(pairs)])
