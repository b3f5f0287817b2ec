"""Closed accuracy, open exact match, token recall and more as an `evaluate` module."""

from __future__ import annotations

from collections.abc import Sequence

import evaluate

from qvft.evaluation.metric_table import METRICS
from qvft.evaluation.metrics.medical import DEFINITIONS
from qvft.evaluation.modules.features import TEXTS, group_figures


class MedicalVqa(evaluate.Metric):
    """Scores of short answers to closed and open questions."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            features=TEXTS,
            description="\n".join(DEFINITIONS.values()),
            inputs_description="predictions: one answer a question; references: a list of right "
            "answers a question; answer_types (optional): `closed` or `open` for each, otherwise "
            "closed where every right answer is yes or no. Gives percentages by name; those of a "
            "kind of question that does not occur are absent.",
            reference_urls=["https://osf.io/89kps/"],
            citation="Lau et al. 2018, A dataset of clinically generated visual questions and "
            "answers about radiology images, Scientific Data 5",
        )

    def _compute(
        self,
        predictions: Sequence[str],
        references: Sequence[Sequence[str]],
        answer_types: Sequence[str] | None = None,
    ) -> dict[str, float]:
        return group_figures(METRICS["medical"].function, predictions, references, answer_types)
