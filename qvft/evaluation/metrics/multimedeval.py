"""MultiMedEval's scores of medical answers, from 0 to 1.

Texts are composed (Unicode NFC) first, which the toolkit does not do.

Source: github.com/corentin-ryr/MultiMedEval at d9ac283f5ad989d4f78b709f7076f432de4aa69e,
multimedeval/task_families.py (`VQA.evaluate`) and utils.py (`clean_str`).
"""

from __future__ import annotations

import math
from collections import Counter

from qvft.evaluation.metrics.llava_med import normalised

CLOSED_RECALL = 0.4
OPEN_RECALL = 0.75
_AS = "as MultiMedEval (d9ac283) has it"
_CLOSED = "closed are those whose normalised reference is exactly yes or no, whatever the data says"

DEFINITIONS: dict[str, str] = {
    "bleu_multimedeval": (
        f"bleu_multimedeval/v1: {_AS}: mean BLEU-1 of each answer to any question, clipped "
        "precision of words times the brevity penalty."
    ),
    "f1_multimedeval": (
        f"f1_multimedeval/v1: {_AS}: mean harmonic mean of precision and recall of different "
        "words, any question."
    ),
    "recall_multimedeval": (
        f"recall_multimedeval/v1: {_AS}: mean share of the reference's different words that the "
        "prediction holds, any question."
    ),
    "closed_accuracy_multimedeval": (
        f"closed_accuracy_multimedeval/v1: {_AS}: share of closed questions whose prediction holds "
        f"the word yes, or for no the word no or not, whatever else it holds; {_CLOSED}."
    ),
    "open_recall_multimedeval": (
        f"open_recall_multimedeval/v1: {_AS}: recall_multimedeval over the other questions; "
        f"{_CLOSED}."
    ),
    "open_accuracy_multimedeval": (
        f"open_accuracy_multimedeval/v1: {_AS}: share of the other questions with a recall of at "
        f"least {OPEN_RECALL}; {_CLOSED}."
    ),
}


def item_scores(prediction: str, reference: str) -> dict[str, float]:
    """An item's scores by name, from 0 to 1; those of the other kind of question are absent."""
    # The toolkit's tasks strip and lower-case the reference before it is normalised.
    given, wanted = normalised(prediction).split(), normalised(reference.lower().strip()).split()
    predicted, right = set(given), set(wanted)
    precision, recall = _share(predicted & right, predicted), _share(predicted & right, right)
    scores = {
        "bleu_multimedeval": _bleu_1(given, wanted),
        "f1_multimedeval": 2 * precision * recall / (precision + recall + 1e-8),
        "recall_multimedeval": recall,
    }
    if wanted in (["yes"], ["no"]):
        accepted = right | {"not"} if "no" in right else right
        correct = _share(predicted & accepted, accepted) >= CLOSED_RECALL
        return {**scores, "closed_accuracy_multimedeval": float(correct)}
    return {
        **scores,
        "open_recall_multimedeval": recall,
        "open_accuracy_multimedeval": float(recall >= OPEN_RECALL),
    }


def _share(part: set[str], whole: set[str]) -> float:
    return len(part) / len(whole) if whole else 0.0


def _bleu_1(given: list[str], wanted: list[str]) -> float:
    """torchmetrics' `BLEUScore(n_gram=1)`, which computes in float32."""
    shared = (Counter(given) & Counter(wanted)).total()
    if not shared:
        return 0.0
    return shared / len(given) * math.exp(min(0.0, 1 - len(wanted) / len(given)))
