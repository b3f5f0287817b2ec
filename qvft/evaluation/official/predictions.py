"""qvft's own `predictions.jsonl`: scored again by its references, or written as a results file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qvft.errors import DataError
from qvft.evaluation.official.scored import Scored
from qvft.evaluation.rows import row_of_json
from qvft.evaluation.scoring import score
from qvft.files import write_text
from qvft.json_files import json_text, read_jsonl

RESULTS = {"coco_results": ("image_id", "caption"), "vqa_results": ("question_id", "answer")}
"""Keys of a row in the layouts that evaluation servers take."""


def score_predictions_file(predictions: Path, *, metrics: Sequence[str]) -> Scored:
    """Scores of a `predictions.jsonl` as `qvft eval` would give them; its own are not read.

    Args:
        metrics: as in `scoring.score`.

    Raises:
        DataError: a row is broken, has no references, the id of another, or does not fit a metric.
    """
    lines = [(f"{predictions}:{number}", row) for number, row in read_jsonl(predictions)]
    rows = [row_of_json(row, where=where) for where, row in lines]
    if not rows:
        raise DataError("no rows", where=str(predictions), expected="what qvft eval writes")
    seen: set[str] = set()
    for (where, _), row in zip(lines, rows, strict=True):
        if row.id in seen:
            raise DataError(f"`id` {row.id} is used twice", where=where, expected="an id per row")
        seen.add(row.id)
    found = score(rows, metrics=list(metrics))
    return Scored(
        metrics=found.metrics,
        n=len(rows),
        per_item={row.id: scores for row, scores in zip(rows, found.per_item, strict=True)},
        files={"predictions": predictions},
        definition="qvft's metrics, by the references in the file",
        counts={},
        units=found.units,
        n_by_metric={name: sum(name in one for one in found.per_item) for name in found.metrics},
        definitions=found.definitions,
        intervals=found.intervals,
    )


def write_results(predictions: Path, out: Path, *, layout: str) -> tuple[int, int]:
    """Writes the rows of `qvft eval` or `qvft predict` as a results file.

    A row without a text, because its image could not be read, gets an empty one. The id is the
    row's own; of a caption without id the number at the end of the image's name, as in COCO's.

    Args:
        layout: of `RESULTS`.

    Returns:
        Rows written, and rows of the other kind (captions, questions) that were left out.

    Raises:
        DataError: a row has no id, or there is none of that kind.
    """
    id_key, text_key = RESULTS[layout]
    written: list[dict[str, Any]] = []
    others = 0
    for number, row in read_jsonl(predictions):
        if (row.get("question") is not None) != (layout == "vqa_results"):
            others += 1
            continue
        name = str(row.get("id", "")).removesuffix("#captions")
        ending = re.search(r"\d+$", Path(str(row.get("image", ""))).stem)
        if not name and ending and layout == "coco_results":
            name = ending[0]
        if not name:
            where = f"{predictions}:{number}"
            do = f"predict from JSONL rows with `id`, which becomes `{id_key}`"
            raise DataError("no id", where=where, expected="`id`", do=do)
        text = row.get("prediction", row.get("text", ""))
        whole = re.fullmatch(r"\d+", name)
        written.append({id_key: int(name) if whole else name, text_key: text})
    if not written:
        kind = "questions" if layout == "vqa_results" else "captions"
        raise DataError(f"no {kind}", where=str(predictions), expected=f"rows for {layout}")
    write_text(out, "[\n" + ",\n".join(map(json_text, written)) + "\n]\n")
    return len(written), others
