"""Baseline scores for a report: the base model's, and the most frequent answer's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qvft.data.rows import Row
from qvft.data.sample import Question
from qvft.errors import UserError
from qvft.evaluation.baselines import most_frequent_answers
from qvft.log import get_logger
from qvft.recipe.schema import Recipe
from qvft.setup.data import read_texts

logger = get_logger("qvft.eval")


def base_figures(
    folders: Sequence[Path], data_sha256: str, decode: Mapping[str, Any]
) -> dict[str, float] | None:
    """The base model's metrics from an evaluation with the same data and decoding.

    None if there is no such report; one with other settings is logged.
    """
    asked = json.loads(json.dumps(decode))
    for folder in folders:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        if report["data"]["sha256"] == data_sha256 and report["decode"] == asked:
            return report["metrics"]
    if folders:
        logger.warning("%s: other data or decoding; the base's figures are left out", folders[0])
    return None


def frequent_answer_predictions(recipe: Recipe, rows: Sequence[Row]) -> list[str] | None:
    """Most frequent training answer for each question among `rows`.

    None without questions, or without the training split.
    """
    asked = [row for row in rows if row.kind == "question"]
    if not asked or recipe.data.train is None:
        return None
    if recipe.data.train.stream:
        logger.warning("no most-frequent-answer baseline: the training data is a stream")
        return None
    try:
        samples = read_texts(recipe, "train")
    except UserError as error:
        logger.warning("no most-frequent-answer baseline: %s", error)
        return None
    train = [question for sample in samples for question in sample.questions]
    questions = [Question(r.id, r.question or "", r.references, r.meta) for r in asked]
    return most_frequent_answers(train, questions) if train else None
