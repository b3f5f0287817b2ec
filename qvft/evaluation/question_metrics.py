"""Question-answering metrics: exact match, medical VQA, VQA accuracy, two papers' scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qvft.errors import DataError
from qvft.evaluation.metric import Group, Metric, ScoreInfo, by_item
from qvft.evaluation.metrics import llava_med, medical, multimedeval
from qvft.evaluation.metrics.answers import EXACT_MATCH, exact_match
from qvft.evaluation.metrics.vqa import Rules, vqa_accuracy
from qvft.evaluation.rows import PredictionRow

TEN_ANSWERS = 10

_ANSWER_MATCH = ScoreInfo(
    "exact_match", "percent", EXACT_MATCH, main=4, table=6, page=90
)  # fmt: skip


def _vqa(rules: Rules, *, rank: int, is_auto: bool = False) -> Metric:
    name = f"vqa_accuracy_{rules}"
    score = ScoreInfo(
        name,
        "percent",
        f"{name}/v2: as the official VQA evaluator computes it under its rules of {rules}, on "
        "composed text (Unicode NFC); each of ten human answers is left out in turn, three matches "
        "among the others do.",
        f"VQA accuracy ({rules})",
        main=1 + rank,
        table=6 + rank,
        page=3 + rank,
        breakdown=True,
    )

    def scored(row: PredictionRow) -> Mapping[str, float]:
        return {name: vqa_accuracy(row.prediction, row.references, rules=rules)}

    return Metric(
        f"vqa_{rules}",
        "question",
        by_item(scored, (score,)),
        (score,),
        auto=(lambda rows: _without_ten_answers(rows) is None) if is_auto else None,
        misfit=_without_ten_answers,
    )


def _without_ten_answers(rows: Sequence[PredictionRow]) -> DataError | None:
    other = next((row for row in rows if len(row.references) != TEN_ANSWERS), None)
    if other is None:
        return None
    return DataError(
        f"question {other.id!r} has {len(other.references)} answers",
        expected=f"{TEN_ANSWERS} human answers for VQA accuracy",
        do="use the metrics `answers` instead",
    )


_SHOWN_MEDICAL: dict[str, dict[str, Any]] = {
    "accuracy": {"main": 1, "page": 1},
    "closed_accuracy": {"table": 1, "page": 2},
    "closed_accuracy_anywhere": {
        "table": 2, "label": "closed accuracy, yes or no anywhere"
    },
    "closed_unparseable": {"table": 3, "breakdown": False, "lower_is_better": True},
    "closed_undecided": {"breakdown": False, "lower_is_better": True},
    "open_exact_match": {"table": 4, "page": 3},
    "open_token_recall": {"table": 5},
    "open_token_f1": {"label": "open token F1"},
    "open_bleu_1": {"breakdown": False, "label": "open BLEU-1"},
}  # fmt: skip
_MEDICAL = tuple(
    ScoreInfo(
        name,
        "percent",
        definition,
        **{"table": None, "page": None, "breakdown": True, **_SHOWN_MEDICAL.get(name, {})},
    )
    for name, definition in medical.DEFINITIONS.items()
)


def _medical_item(row: PredictionRow) -> Mapping[str, float | str | None]:
    kind = medical.answer_type(row.references, row.meta)
    scores, outcomes = medical.item_scores(row.prediction, row.references, kind)
    return {**scores, **outcomes}


def _state_answer_type(rows: Sequence[PredictionRow]) -> bool:
    stated = {row.meta.get("answer_type", "").strip().lower() for row in rows}
    return stated <= {"closed", "open"}


_LLAVA_MED_LABELS = {
    "closed_accuracy_llava_med": "closed accuracy (LLaVA-Med, before its repair)",
    "closed_accuracy_llava_med_v2": "closed accuracy (LLaVA-Med)",
}
# Scores for comparison with papers: in the full table and in `report.json` alone.
_LLAVA_MED = tuple(
    ScoreInfo(name, "percent", text, _LLAVA_MED_LABELS.get(name), table=None, page=None)
    for name, text in llava_med.DEFINITIONS.items()
)
_MULTIMEDEVAL = tuple(
    ScoreInfo(name, "0..1", text, table=None, page=None)
    for name, text in multimedeval.DEFINITIONS.items()
)


def llava_med_group(candidates: llava_med.Candidates | None = None) -> Group:
    """LLaVA-Med's scores; open accuracy among them where there are candidates to choose from."""

    def scored(row: PredictionRow) -> Mapping[str, float | None]:
        return llava_med.item_scores(
            row.prediction, row.references[0], closed=_is_closed(row), candidates=candidates
        )

    return by_item(scored, _LLAVA_MED)


def _is_closed(row: PredictionRow) -> bool:
    return medical.answer_type(row.references, row.meta) == "closed"


def _without_closed_questions(rows: Sequence[PredictionRow]) -> DataError | None:
    if any(map(_is_closed, rows)):
        return None
    return DataError("data without closed questions", do="name other metrics, or auto")


def _multimedeval_item(row: PredictionRow) -> Mapping[str, float]:
    return multimedeval.item_scores(row.prediction, row.references[0])


def _answer_item(row: PredictionRow) -> Mapping[str, float]:
    return {_ANSWER_MATCH.name: exact_match(row.prediction, row.references)}


QUESTION_METRICS = (
    Metric(
        "medical", "question", by_item(_medical_item, _MEDICAL), _MEDICAL, auto=_state_answer_type
    ),
    Metric(
        "llava_med", "question", llava_med_group(), _LLAVA_MED, misfit=_without_closed_questions
    ),
    Metric("multimedeval", "question", by_item(_multimedeval_item, _MULTIMEDEVAL), _MULTIMEDEVAL),
    _vqa("2017", rank=1, is_auto=True),
    _vqa("2021", rank=2),
    Metric(
        "answers",
        "question",
        by_item(_answer_item, (_ANSWER_MATCH,)),
        (_ANSWER_MATCH,),
        auto=lambda rows: True,
    ),
)
