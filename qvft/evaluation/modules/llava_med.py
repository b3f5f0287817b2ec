"""LLaVA-Med's scores as an `evaluate` module; for comparison with papers."""

from __future__ import annotations

from collections.abc import Sequence

import evaluate

from qvft.evaluation.metrics.llava_med import DEFINITIONS, Candidates
from qvft.evaluation.modules.features import TEXTS, group_figures
from qvft.evaluation.question_metrics import llava_med_group


class LlavaMed(evaluate.Metric):
    """Both closed accuracies of LLaVA-Med's script, before and after its repair, and the rest."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            features=TEXTS,
            description="\n".join(DEFINITIONS.values()),
            inputs_description="predictions: one answer a question; references: a list of right "
            "answers a question, the first counts; answer_types (optional): `closed` or `open` "
            "for each; candidates (optional): the answers that open accuracy chooses from. Gives "
            "percentages by name and `n`, the questions scored; `closed_accuracy_llava_med` (v1) "
            "is absent where it leaves every question out, and figures of a kind of question "
            "that does not occur are absent.",
            reference_urls=[
                "https://github.com/microsoft/LLaVA-Med/tree/"
                "b9a98a736d2ef05bcf5ff345be6403fb3a664eaf"
            ],
            citation="Li et al. 2023, LLaVA-Med: Training a Large Language-and-Vision Assistant "
            "for Biomedicine in One Day, arXiv:2306.00890",
        )

    def _compute(
        self,
        predictions: Sequence[str],
        references: Sequence[Sequence[str]],
        answer_types: Sequence[str] | None = None,
        candidates: Sequence[str] | None = None,
    ) -> dict[str, float]:
        group = llava_med_group(Candidates.of(candidates) if candidates else None)
        return group_figures(group, predictions, references, answer_types)
