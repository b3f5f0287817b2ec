"""Input features of the `evaluate` modules, and scores from the columns that it passes."""

from __future__ import annotations

from collections.abc import Sequence

from datasets import Features, List, Value

from qvft.errors import DataError
from qvft.evaluation.metric import Group
from qvft.evaluation.rows import PredictionRow

# One text of the model and all human texts per item.
TEXTS = Features({"predictions": Value("string"), "references": List(Value("string"))})

# One row of similarities per image, and the columns of its texts.
SIMILARITIES = Features({"predictions": List(Value("float64")), "references": List(Value("int64"))})


def group_figures(
    group: Group,
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    answer_types: Sequence[str] | None,
) -> dict[str, float]:
    """The figures of a group, each in its unit, and `n`, the number of items it scored.

    Args:
        answer_types: `closed` or `open` for each; None: closed where every right answer is yes or
            no.

    Raises:
        DataError: no predictions, not as many answer types as predictions, or a question without
            a right answer.
    """
    if not len(predictions):
        raise DataError("no predictions", expected="an answer and its references, or more")
    types = [""] * len(predictions) if answer_types is None else answer_types
    if len(types) != len(predictions):
        raise DataError(
            f"{len(types)} answer types", expected=f"one for each of {len(predictions)} predictions"
        )
    rows = [
        PredictionRow(
            id=str(number),
            image=str(number),
            kind="question",
            question=None,
            prediction=prediction,
            references=tuple(answers),
            meta={"answer_type": kind},
        )
        for number, (prediction, answers, kind) in enumerate(
            zip(predictions, references, types, strict=True)
        )
    ]
    for row in rows:
        if not row.references:
            raise DataError(f"question {row.id} has no references", expected="at least one")
    scores = group(rows, range(len(rows)))
    return {metric.name: metric.value for metric in scores.metrics} | {"n": scores.n}
