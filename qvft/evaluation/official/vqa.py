"""VQA v2 layouts: questions, annotations with human answers, results.

Source: github.com/GT-Vision-Lab/VQA, PythonHelperTools/vqaTools/vqa.py (`loadRes`) and
PythonEvaluationTools/vqaEvaluation/vqaEval.py: results must answer every annotated question and no
other; scores are plain means in percent, rounded to two digits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qvft.data.formats import fields
from qvft.errors import DataError
from qvft.evaluation.metrics.vqa import Rules, vqa_accuracy
from qvft.evaluation.official.reading import identifier, named, read_results, words
from qvft.evaluation.official.scored import Scored
from qvft.json_files import read_json

_DEFINITION = (
    "VQA accuracy, the official evaluator's rules of {rules}, on composed text, in percent"
)


@dataclass(frozen=True)
class Annotation:
    """The human answers to a question, and its types."""

    answers: tuple[str, ...]
    question_type: str
    answer_type: str


def score_vqa_files(
    questions: Path, annotations: Path, predictions: Path, *, rules: Rules = "2017"
) -> Scored:
    """Scores of a results file; `per_item` holds each question's accuracy in percent.

    Questions are scored in the order of the annotations file. Of several rows for a question the
    first counts, and that is counted. Questions without annotation are not scored, and counted.

    Raises:
        DataError: a file or row is broken; an annotation has no question; a result's question has
            no annotation; an annotated question has no result, which the official evaluator
            refuses as well, under either year's rules.
    """
    annotated = _read_annotations(annotations)
    rows = fields.section(read_json(questions), "questions", path=questions)
    asked = {identifier(row, "question_id", where=where) for where, row in rows}
    _refuse(
        [name for name in annotated if name not in asked],
        f"of {len(annotated):,} annotated questions are no questions here",
        where=questions,
        expected=f"the questions of {annotations}",
        do="give both files of the same split",
    )
    results = read_results(predictions, key="question_id", text_key="answer")
    _refuse(
        [name for name in results.texts if name not in annotated],
        f"of {len(results.texts):,} questions have no annotation",
        where=predictions,
        expected=f"questions of {annotations}",
        do="give the annotations of the split that the predictions were made on",
    )
    _refuse(
        [name for name in annotated if name not in results.texts],
        f"of {len(annotated):,} questions have no prediction",
        where=predictions,
        expected="an answer to every annotated question, as the official evaluator does",
        do='add them; an empty answer, "", counts as wrong',
    )
    accuracies = {
        name: vqa_accuracy(results.texts[name], annotation.answers, rules=rules)
        for name, annotation in annotated.items()
    }
    unanswered = len(asked) - len(annotated)
    notes = []
    if results.repeated:
        notes.append(
            f"rows that repeat a question: {len(results.repeated):,}, "
            f"first {results.repeated[0]}; the first row of a question counts"
        )
    if unanswered:
        notes.append(f"questions without annotation: {unanswered:,} of {len(asked):,}, not scored")
    return Scored(
        metrics=_metrics(accuracies, annotated),
        n=len(accuracies),
        per_item={name: _percent([accuracy]) for name, accuracy in accuracies.items()},
        files={"questions": questions, "annotations": annotations, "predictions": predictions},
        definition=_DEFINITION.format(rules=rules),
        counts={"duplicate_rows": len(results.repeated), "without_annotation": unanswered},
        settings={"rules": rules},
        notes=tuple(notes),
    )


def _read_annotations(path: Path) -> dict[str, Annotation]:
    """The annotations by question, answers exactly as written."""
    found: dict[str, Annotation] = {}
    for where, row in fields.section(read_json(path), "annotations", path=path):
        name = identifier(row, "question_id", where=where)
        if name in found:
            raise DataError(
                f"`question_id` {name} is annotated twice",
                where=where,
                expected="one annotation a question",
                do="remove one of the two",
            )
        given = fields.field(row, "answers", where=where)
        answers = tuple(
            words(one, "answer", where=place)
            for place, one in fields.records(given, where=f"{where}, answers")
        )
        if len(answers) < 2:
            raise DataError(
                f"`answers` has {len(answers)}",
                where=where,
                expected="the ten human answers",
                do="add the others, or remove the question from both files",
            )
        found[name] = Annotation(
            answers,
            words(row, "question_type", where=where),
            words(row, "answer_type", where=where),
        )
    if not found:
        raise DataError(
            "no annotations",
            where=str(path),
            expected="some in `annotations`",
            do="check that the file is whole",
        )
    return found


def _refuse(ids: Sequence[str], what: str, *, where: Path, expected: str, do: str) -> None:
    """Raises the error that names the first of `ids`, if there are any."""
    if ids:
        given = f"{len(ids):,} {what}: {named(ids)}"
        raise DataError(given, where=str(where), expected=expected, do=do)


def _metrics(accuracies: dict[str, float], annotated: dict[str, Annotation]) -> dict[str, Any]:
    by_type: dict[str, dict[str, list[float]]] = {
        "question_type": defaultdict(list), "answer_type": defaultdict(list),
    }  # fmt: skip
    for name, accuracy in accuracies.items():
        for key, groups in by_type.items():
            groups[getattr(annotated[name], key)].append(accuracy)
    return {
        "overall": _percent(list(accuracies.values())),
        **{
            f"per_{key}": {name: _percent(found) for name, found in groups.items()}
            for key, groups in by_type.items()
        },
    }


def _percent(accuracies: Sequence[float]) -> float:
    return round(100 * sum(accuracies) / len(accuracies), 2)
