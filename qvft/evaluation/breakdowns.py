"""Score breakdowns by metadata (question type, modality), and statistics of the outputs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from qvft.evaluation.metric_table import known_scores
from qvft.evaluation.metrics.answers import exact_match
from qvft.evaluation.metrics.unicode_letters import composed
from qvft.evaluation.rows import PredictionRow
from qvft.evaluation.stats import bootstrap_mean

MOST_VALUES = 30
MOST_QUESTIONS = 20

Entry = dict[str, "float | str | tuple[float, float]"]
Breakdowns = dict[str, list[Entry]]
PerItem = Sequence[Mapping[str, "float | str"]]


def break_down(rows: Sequence[PredictionRow], per_item: PerItem) -> Breakdowns:
    """Entries by key: every `meta` key with 2 to 30 values, the question's text with 2 to 20.

    An entry has `value`, `n`, `exact_match` (percent), its `interval` where there are two images,
    and the means of the items' main scores; the most frequent value comes first. An item that
    lacks a key has the value `(none)`, but for a key that no item of its kind has. An item may
    have several values (see `item_values`) and counts once under each, so that the `n` of a
    breakdown may sum to more than the items.
    """
    values = [item_values(row) for row in rows]
    matches = [exact_match(row.prediction, row.references) for row in rows]
    keys = [*sorted({key for own in values for key in own} - {"kind", "question"}), "question"]
    found: Breakdowns = {}
    for key in ("kind", *keys):
        kinds = {row.kind for row, own in zip(rows, values, strict=True) if key in own}
        kinds = kinds if key != "question" else set()  # a caption without one lacks nothing
        members: dict[str, list[int]] = defaultdict(list)
        for index, (row, own) in enumerate(zip(rows, values, strict=True)):
            for value in own.get(key, ("(none)",) if row.kind in kinds else ()):
                members[value].append(index)
        if 1 < len(members) <= (MOST_QUESTIONS if key == "question" else MOST_VALUES):
            ordered = sorted(members.items(), key=lambda pair: (-len(pair[1]), pair[0]))
            found[key] = [_entry(rows, per_item, matches, *pair) for pair in ordered]
    return found


def item_values(row: PredictionRow) -> dict[str, tuple[str, ...]]:
    """Values of an item by key: its kind, its question, and its `meta`.

    If `meta` has a key and its plural (`question_type` and `question_types`), the plural has all
    values, joined by commas, and is used: VQA-RAD types a question as `PRES,ABN`, which counts as
    presence and as abnormality.
    """
    values: dict[str, tuple[str, ...]] = {}
    for key, value in row.meta.items():
        if f"{key}s" in row.meta:
            continue
        single = key.removesuffix("s")
        if single != key and single in row.meta:
            parts = [part.strip() for part in str(value).split(",")]
            values[single] = tuple(dict.fromkeys(part or "(none)" for part in parts))
        else:
            values[key] = (str(value).strip() or "(none)",)
    values["kind"] = (row.kind,)
    if row.question is not None:
        values["question"] = (row.question,)
    return values


def _entry(
    rows: Sequence[PredictionRow],
    per_item: PerItem,
    matches: Sequence[float],
    value: str,
    indices: Sequence[int],
) -> Entry:
    found = [matches[i] for i in indices]
    entry: Entry = {
        "value": value,
        "n": len(indices),
        "exact_match": 100 * sum(found) / len(found),
    }
    interval = bootstrap_mean(found, [rows[i].image for i in indices])
    if interval is not None:
        entry["interval"] = (100 * interval[0], 100 * interval[1])
    shown = [score for score in known_scores().values() if score.breakdown]
    for score in sorted(shown, key=lambda score: score.unit != "percent"):
        found = [float(per_item[i][score.name]) for i in indices if score.name in per_item[i]]
        if found:
            scale = 100 if score.unit == "percent" else 1
            entry[score.name] = scale * sum(found) / len(found)
    return entry


def count_outputs(rows: Sequence[PredictionRow], per_item: PerItem) -> dict[str, float]:
    """Numbers of empty, distinct and unparseable outputs, and the share of the most common one."""
    texts = Counter(composed(row.prediction).strip() for row in rows)
    found = [scores.get("parsed_anywhere") for scores in per_item]
    most = max(texts.values(), default=0)
    return {
        "predictions": len(rows),
        "empty_predictions": texts.get("", 0),
        "different_predictions": len(texts),
        "most_common_prediction_share": 100 * most / max(1, len(rows)),
        "unparseable": sum(scores.get("parsed") == "unparseable" for scores in per_item),
        "undecided": found.count("both") + found.count("neither"),
    }
