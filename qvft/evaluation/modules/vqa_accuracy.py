"""VQA accuracy under the rules of 2017 or 2021 as an `evaluate` module."""

from __future__ import annotations

from collections.abc import Sequence

import evaluate

from qvft.errors import DataError
from qvft.evaluation.metrics.vqa import Rules, vqa_accuracy
from qvft.evaluation.modules.features import TEXTS

RULES = ("2017", "2021")


class VqaAccuracy(evaluate.Metric):
    """Accuracy against ten human answers; the configuration names the rules."""

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in ("default", *RULES):
            raise ValueError(f"rules {self.config_name!r}; expected one of {', '.join(RULES)}")
        return evaluate.MetricInfo(
            features=TEXTS,
            description="VQA accuracy as the official evaluator computes it, under its rules of "
            "2017 (default) or 2021.",
            inputs_description="predictions: one answer a question; references: the human "
            "answers, ten in VQA v2. Gives `accuracy`, the mean in percent, not rounded, and "
            "`rules`.",
            reference_urls=["https://github.com/GT-Vision-Lab/VQA"],
            citation="Antol et al. 2015, VQA: Visual Question Answering, arXiv:1505.00468",
        )

    def _compute(
        self, predictions: Sequence[str], references: Sequence[Sequence[str]]
    ) -> dict[str, float | str]:
        if not len(predictions):
            raise DataError("no predictions", expected="an answer and its references, or more")
        rules: Rules = "2021" if self.config_name == "2021" else "2017"
        found = [
            vqa_accuracy(prediction, answers, rules=rules)
            for prediction, answers in zip(predictions, references, strict=True)
        ]
        return {"accuracy": 100 * sum(found) / len(found), "rules": rules}
