"""MultiMedEval's scores of medical answers as an `evaluate` module; for comparison with papers."""

from __future__ import annotations

from collections.abc import Sequence

import evaluate

from qvft.evaluation.metric_table import METRICS
from qvft.evaluation.metrics.multimedeval import DEFINITIONS
from qvft.evaluation.modules.features import TEXTS, group_figures


class MultiMedEval(evaluate.Metric):
    """BLEU-1, F1 and recall of all questions, and accuracies of closed and open ones."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            features=TEXTS,
            description="\n".join(DEFINITIONS.values()),
            inputs_description="predictions: one answer a question; references: a list of right "
            "answers a question, the first counts. Gives figures from 0 to 1 by name and `n`, "
            "the questions scored; figures of a kind of question that does not occur are absent.",
            reference_urls=[
                "https://github.com/corentin-ryr/MultiMedEval/tree/"
                "d9ac283f5ad989d4f78b709f7076f432de4aa69e"
            ],
            citation="Royer et al. 2024, MultiMedEval: A Benchmark and a Toolkit for Evaluating "
            "Medical Vision-Language Models, arXiv:2402.09262",
        )

    def _compute(
        self, predictions: Sequence[str], references: Sequence[Sequence[str]]
    ) -> dict[str, float]:
        return group_figures(METRICS["multimedeval"].function, predictions, references, None)
