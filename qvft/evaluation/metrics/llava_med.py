"""LLaVA-Med's scores of medical answers, as its evaluation script computes them.

The script was published twice with other closed accuracies: commit fc39e79 (2023-12-11, "fix closed
accuracy calculation") gave the first one its missing branch. The last version, b9a98a7, has that
repair; later versions of the project have no evaluator. All other figures are the same in both.

Texts are composed (Unicode NFC) first, which the script does not do; else it is followed to the
letter, oddities included.

Source: github.com/microsoft/LLaVA-Med at b9a98a736d2ef05bcf5ff345be6403fb3a664eaf,
llava/eval/run_eval.py and llava/eval/eval_metrics/; before the repair: e9972cf.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from qvft.evaluation.metrics.unicode_letters import composed
from qvft.evaluation.metrics.vqa import spell_and_drop_articles, strip_punctuation

_ORDERS = 4
_OPEN = "open questions, as LLaVA-Med's script (b9a98a7) has it"
_BLEU_N = (
    "{name}/v1: " + _OPEN + ": mean clipped precision of n-grams of order {order} alone, as "
    "nltk's sentence_bleu with all weight on it, times the brevity penalty."
)

DEFINITIONS: dict[str, str] = {
    "closed_accuracy_llava_med": (
        "closed_accuracy_llava_med/v1: as in LLaVA-Med's script before commit fc39e79 of "
        "2023-12-11 (and still in its run_eval_pvqa.py), for comparison only: a prediction that "
        "contains 'yes' or 'no' as a substring is right if it contains the reference and is left "
        "out of the denominator if not; other predictions are wrong. Leaving wrong answers out is "
        "a mistake that makes the figure too high. Both texts as VQA's evaluator normalises them."
    ),
    "closed_accuracy_llava_med_v2": (
        "closed_accuracy_llava_med/v2: as in LLaVA-Med's script as last published, commit b9a98a7: "
        "share of closed questions whose prediction contains 'yes' or 'no' and the reference, as "
        "substrings, both texts as VQA's evaluator normalises them. A closed question with another "
        "answer (left, CT) is right by accident only."
    ),
    "open_exact_match_llava_med": (
        f"open_exact_match_llava_med/v1: {_OPEN}: mean number of different reference words that "
        "the prediction holds, over the number of all its words."
    ),
    "open_f1_llava_med": (
        f"open_f1_llava_med/v1: {_OPEN}: mean harmonic mean of precision and recall of words."
    ),
    "open_precision_llava_med": (
        f"open_precision_llava_med/v1: {_OPEN}: mean share of the prediction's words, repetitions "
        "counted, that are among the reference's."
    ),
    "open_recall_llava_med": (
        f"open_recall_llava_med/v1: {_OPEN}: mean of shared / (shared + missing) words, where a "
        "shared word counts as often as in the prediction."
    ),
    "open_bleu_llava_med": (
        f"open_bleu_llava_med/v1: {_OPEN}: mean BLEU-4 of each answer as nltk's sentence_bleu, "
        "which gives answers below four words nearly 0."
    ),
    **{
        f"open_bleu_{order}_llava_med": _BLEU_N.format(
            name=f"open_bleu_{order}_llava_med", order=order
        )
        for order in (1, 2, 3)
    },
    "open_accuracy_llava_med": (
        f"open_accuracy_llava_med/v1: {_OPEN}: share whose reference is the candidate that has "
        "most of its different words in the prediction, the first of equals."
    ),
}


@dataclass(frozen=True)
class Candidates:
    """The answers that open accuracy chooses from, in order: text and words, normalised."""

    texts: tuple[str, ...]
    words: tuple[frozenset[str], ...]

    @classmethod
    def of(cls, answers: Sequence[str]) -> Candidates:
        """From the answers as they are written; at least one."""
        texts = tuple(normalised(answer) for answer in answers)
        return cls(texts, tuple(frozenset(text.split()) for text in texts))

    def nearest(self, words: frozenset[str]) -> str:
        """The first candidate of which the largest share of words is among `words`."""
        shares = [len(own & words) / len(own) if own else 0.0 for own in self.words]
        return self.texts[shares.index(max(shares))]


def normalised(text: str) -> str:
    """The text as the script normalises it: VQA's two steps, punctuation and words."""
    return spell_and_drop_articles(strip_punctuation(composed(text).lower())).replace(",", "")


def item_scores(
    prediction: str, reference: str, *, closed: bool, candidates: Candidates | None = None
) -> dict[str, float | None]:
    """An item's scores by name, from 0 to 1; None where v1 leaves the question out.

    Args:
        closed: whether the question counts as closed; open questions get the open scores.
        candidates: without them there is no open accuracy.
    """
    given, wanted = normalised(prediction), normalised(reference)
    if closed:
        is_yes_no = "yes" in given or "no" in given
        right = float(is_yes_no and wanted in given)
        return {
            "closed_accuracy_llava_med": None if is_yes_no and not right else right,
            "closed_accuracy_llava_med_v2": right,
        }
    scores: dict[str, float | None] = {}
    once = given.split(), wanted.split()
    # The script normalises a second time wherever it counts words, but not for BLEU.
    given, wanted = normalised(given), normalised(wanted)
    scores |= _word_scores(Counter(given.split()), Counter(wanted.split()))
    scores |= _bleus(*once)
    if candidates is not None:
        chosen = candidates.nearest(frozenset(given.split()))
        scores["open_accuracy_llava_med"] = float(chosen == wanted)
    return scores


def _word_scores(given: Counter[str], wanted: Counter[str]) -> dict[str, float]:
    shared = sum(count for word, count in given.items() if word in wanted)
    missing = sum(count for word, count in wanted.items() if word not in given)
    precision = shared / given.total() if shared else 0.0
    recall = shared / (shared + missing) if shared else 0.0
    return {
        "open_exact_match_llava_med": len(given.keys() & wanted.keys()) / max(1, given.total()),
        "open_f1_llava_med": 2 * precision * recall / (precision + recall) if shared else 0.0,
        "open_precision_llava_med": precision,
        "open_recall_llava_med": recall,
    }


def _bleus(given: Sequence[str], wanted: Sequence[str]) -> dict[str, float]:
    """BLEU of orders 1 to 4 with equal weights, then of single orders, as nltk without smoothing.

    Source: nltk 3.10 translate/bleu_score.py: an order without a match counts as the smallest
    normal float, and all of them as 0 where no word matches.
    """
    names = ["open_bleu_llava_med", *(f"open_bleu_{order}_llava_med" for order in (1, 2, 3))]
    precisions = [_precision(given, wanted, order) for order in range(1, _ORDERS + 1)]
    if not precisions[0]:
        return dict.fromkeys(names, 0.0)
    logs = [math.log(precision or sys.float_info.min) for precision in precisions]
    penalty = math.exp(min(0.0, 1 - len(wanted) / len(given)))
    exponents = [math.fsum(0.25 * log for log in logs), *logs[:3]]
    return {
        name: penalty * math.exp(exponent) for name, exponent in zip(names, exponents, strict=True)
    }


def _precision(given: Sequence[str], wanted: Sequence[str], order: int) -> float:
    mine, theirs = (
        Counter(tuple(words[i : i + order]) for i in range(len(words) - order + 1))
        for words in (given, wanted)
    )
    return (mine & theirs).total() / max(1, mine.total())
