"""Closed accuracy as LLaVA-Med counts it as an `evaluate` module; for comparison only."""

from __future__ import annotations

from collections.abc import Sequence

import evaluate

from qvft.evaluation.metrics.medical import LLAVA_MED_DEFINITION
from qvft.evaluation.modules.features import TEXTS, described
from qvft.evaluation.modules.questions import group_figures


class LlavaMed(evaluate.Metric):
    """A figure to compare with a paper; wrong yes/no answers leave its denominator."""

    def _info(self) -> evaluate.MetricInfo:
        return described(
            TEXTS,
            description=LLAVA_MED_DEFINITION,
            inputs="predictions: one answer a question; references: a list of right answers a "
            "question, the first counts; answer_types (optional): `closed` or `open` for each. "
            "Gives `closed_accuracy_llava_med` in percent and `n`, the questions left in; nothing "
            "but `n` where none is left.",
            source="https://github.com/microsoft/LLaVA-Med",
            citation="Li et al. 2023, LLaVA-Med: Training a Large Language-and-Vision Assistant "
            "for Biomedicine in One Day, arXiv:2306.00890",
        )

    def _compute(
        self,
        predictions: Sequence[str],
        references: Sequence[Sequence[str]],
        answer_types: Sequence[str] | None = None,
    ) -> dict[str, float]:
        return group_figures("llava_med", predictions, references, answer_types)
