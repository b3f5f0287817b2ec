"""Scores by what the data says about an item, and what the outputs look like as a whole."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from qvft.evaluation.metrics.exact import exact_match
from qvft.evaluation.rows import PredictionRow
from qvft.evaluation.stats import bootstrap_mean

MOST_VALUES = 30
MOST_QUESTIONS = 20

# Means given beside the exact match, in this order, where the items have them; CIDEr as it is.
_MEANS_IN_PERCENT = ("accuracy", "vqa_accuracy_2017", "vqa_accuracy_2021")
_MEANS = ("CIDEr",)

Entry = dict[str, "float | str | tuple[float, float]"]
Breakdowns = dict[str, list[Entry]]
PerItem = Sequence[Mapping[str, "float | str"]]


def break_down(rows: Sequence[PredictionRow], per_item: PerItem) -> Breakdowns:
    """Entries by key: every `meta` key with 2 to 30 values, the question's text with 2 to 20.

    An entry has `value`, `n`, `exact_match` (percent), its `interval` where there are two images,
    and the means of the items' main scores; the most frequent value comes first. An item that
    lacks a key has the value `(none)`, but for a key that no item of its kind has.
    """
    keys: dict[str, list[str | None]] = {"kind": [row.kind for row in rows]}
    for key in sorted({key for row in rows for key in row.meta}):
        kinds = {row.kind for row in rows if key in row.meta}
        values = [str(row.meta.get(key, "")).strip() or "(none)" for row in rows]
        keys[key] = [
            value if row.kind in kinds else None for row, value in zip(rows, values, strict=True)
        ]
    keys["question"] = [row.question for row in rows]
    most = dict.fromkeys(keys, MOST_VALUES) | {"question": MOST_QUESTIONS}
    return {
        key: _entries(rows, per_item, values)
        for key, values in keys.items()
        if 1 < len(set(values) - {None}) <= most[key]
    }


def _entries(
    rows: Sequence[PredictionRow], per_item: PerItem, values: Sequence[str | None]
) -> list[Entry]:
    members: dict[str, list[int]] = defaultdict(list)
    for index, value in enumerate(values):
        if value is not None:
            members[value].append(index)
    entries: list[Entry] = []
    for value, indices in sorted(members.items(), key=lambda pair: (-len(pair[1]), pair[0])):
        matches = [exact_match(rows[i].prediction, rows[i].references) for i in indices]
        entry: Entry = {
            "value": value,
            "n": len(indices),
            "exact_match": 100 * sum(matches) / len(matches),
        }
        interval = bootstrap_mean(matches, [rows[i].image for i in indices])
        if interval is not None:
            entry["interval"] = (100 * interval[0], 100 * interval[1])
        for scale, names in ((100, _MEANS_IN_PERCENT), (1, _MEANS)):
            for name in names:
                found = [float(per_item[i][name]) for i in indices if name in per_item[i]]
                if found:
                    entry[name] = scale * sum(found) / len(found)
        entries.append(entry)
    return entries


def count_outputs(rows: Sequence[PredictionRow], per_item: PerItem) -> dict[str, float]:
    """How many outputs are empty, different and unparseable, and how large the largest share is."""
    texts = Counter(row.prediction.strip() for row in rows)
    most = max(texts.values(), default=0)
    return {
        "predictions": len(rows),
        "empty_predictions": texts.get("", 0),
        "different_predictions": len(texts),
        "most_common_prediction_share": 100 * most / max(1, len(rows)),
        "unparseable": sum(scores.get("parsed") == "unparseable" for scores in per_item),
    }
