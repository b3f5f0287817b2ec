"""Scores medical answers by three definitions: qvft's own, LLaVA-Med's and MultiMedEval's."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from qvft.evaluation.metrics import llava_med, medical, multimedeval
from qvft.evaluation.official.medical_rows import read_candidates, read_rows
from qvft.evaluation.official.scored import Scored

_DEFINITION = "medical answers by the definitions of qvft, LLaVA-Med and MultiMedEval"
_BY_UNIT = {
    "percent": {**medical.DEFINITIONS, **llava_med.DEFINITIONS},
    "0..1": multimedeval.DEFINITIONS,
}
_SCALES = {"percent": 100, "0..1": 1}
_UNITS = {name: unit for unit, definitions in _BY_UNIT.items() for name in definitions}
_DEFINITIONS = {name: text for found in _BY_UNIT.values() for name, text in found.items()}


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
