"""Medical answers, rows of JSON or JSONL, scored as qvft, LLaVA-Med and MultiMedEval define it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qvft.data.formats import fields
from qvft.errors import DataError
from qvft.evaluation.metrics import llava_med, medical, multimedeval
from qvft.evaluation.metrics.llava_med import Candidates
from qvft.evaluation.metrics.medical import AnswerType
from qvft.evaluation.official.reading import identifier, words
from qvft.evaluation.official.scored import Scored
from qvft.files import read_text
from qvft.json_files import json_of, jsonl_of, read_json

_DEFINITION = "medical answers by the definitions of qvft, LLaVA-Med and MultiMedEval"
_BY_UNIT = {
    "percent": {**medical.DEFINITIONS, **llava_med.DEFINITIONS},
    "0..1": multimedeval.DEFINITIONS,
}
_SCALES = {"percent": 100, "0..1": 1}
_UNITS = {name: unit for unit, definitions in _BY_UNIT.items() for name in definitions}
_DEFINITIONS = {name: text for found in _BY_UNIT.values() for name, text in found.items()}


_TYPES: dict[str, AnswerType] = {"closed": "closed", "open": "open"}
_LONGEST_TYPE = 20
_EXAMPLE = '{"id": ..., "answer_type": ..., "question": ..., "reference": ..., "prediction": ...}'


@dataclass(frozen=True)
class MedicalRow:
    """A question with its right answer and the one that was given; both may be empty."""

    kind: AnswerType
    reference: str
    prediction: str


def score_medical_file(rows: Path, candidates: Path | None = None) -> Scored:
    """Scores of a file of rows; `per_item` holds each question's by versioned name, 0 to 1.

    A metric is the mean over the items that have it: null in `per_item` where LLaVA-Med's first
    script leaves a question out, absent where it does not apply. A mean of none is 0, as there;
    metrics of a kind of question that does not occur are left out.

    Args:
        candidates: of LLaVA-Med's open accuracy; else those in `rows`, else it is left out.

    Raises:
        DataError: a file or row is broken.
    """
    read, listed = read_rows(rows)
    chosen = listed if candidates is None else read_candidates(candidates)
    per_item: dict[str, dict[str, Any]] = {}
    counts = Counter(dict.fromkeys(_COUNTS, 0))
    values: dict[str, list[float | None]] = {}
    for name, row in read.items():
        own, outcome = medical.item_scores(row.prediction, (row.reference,), row.kind)
        scores = {
            **own,
            **llava_med.item_scores(
                row.prediction, row.reference, closed=row.kind == "closed", candidates=chosen
            ),
            **multimedeval.item_scores(row.prediction, row.reference),
        }
        for metric, value in scores.items():
            values.setdefault(metric, []).append(value)
        per_item[name] = {**outcome, **{versioned(key): value for key, value in scores.items()}}
        counts.update(_counted(outcome, row.prediction))
    kept = {
        name: [value for value in values[name] if value is not None]
        for name in _DEFINITIONS
        if name in values
    }
    counts["left_out_by_closed_accuracy_llava_med/v1"] = values.get(_V1, []).count(None)
    return Scored(
        metrics={
            versioned(name): _SCALES[_UNITS[name]] * (sum(found) / max(1, len(found)))
            for name, found in kept.items()
        },
        n=len(read),
        per_item=per_item,
        files={"rows": rows, **({} if candidates is None else {"candidates": candidates})},
        definition=_DEFINITION,
        counts=counts,
        notes=_notes(counts, with_candidates=chosen is not None),
        units={versioned(name): _UNITS[name] for name in kept},
        n_by_metric={versioned(name): len(found) for name, found in kept.items()},
        definitions={versioned(name): _DEFINITIONS[name] for name in kept},
    )


def versioned(name: str) -> str:
    """A metric's name with its version, as its definition begins."""
    return _DEFINITIONS[name].partition(":")[0]


_V1 = "closed_accuracy_llava_med"
_COUNTS = (
    "closed", "open", "yes_no", "unparseable", "said_both", "said_neither", "empty_predictions",
)  # fmt: skip


def _counted(outcome: dict[str, str], prediction: str) -> list[str]:
    """What an item counts as."""
    found = [outcome["answer_type"]]
    if "parsed" in outcome:
        anywhere = outcome["parsed_anywhere"]
        found += ["yes_no"]
        found += ["unparseable"] if outcome["parsed"] == "unparseable" else []
        found += [f"said_{anywhere}"] if anywhere in ("both", "neither") else []
    return found if prediction.strip() else [*found, "empty_predictions"]


def _notes(counts: Counter[str], *, with_candidates: bool) -> tuple[str, ...]:
    notes = []
    if counts["yes_no"]:
        notes.append(
            f"yes/no questions: {counts['yes_no']:,}; answers that do not open with yes or no, "
            f"unparseable: {counts['unparseable']:,}; that hold both words anywhere: "
            f"{counts['said_both']:,}, neither: {counts['said_neither']:,}"
        )
    dropped = counts["left_out_by_closed_accuracy_llava_med/v1"]
    if dropped:
        notes.append(
            "wrong answers that closed_accuracy_llava_med/v1 leaves out of its denominator: "
            f"{dropped:,}; v2 counts them"
        )
    if counts["open"] and not with_candidates:
        notes.append(
            "open_accuracy_llava_med/v1 is left out: no candidates; give --candidates, or "
            "`candidates` beside `rows`"
        )
    return tuple(notes)


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
    """The answers of a file in LLaVA-Med's layout, `{"0": [...]}`, or a list; else a DataError."""
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
