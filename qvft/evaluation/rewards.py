"""Reward functions by name: metrics of single texts, and functions with trl's reward signature."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, cast

from qvft.data.rows import Row
from qvft.dotted_names import import_dotted, is_dotted
from qvft.errors import RecipeError
from qvft.evaluation.metrics.answers import exact_match
from qvft.evaluation.metrics.bleu import bleu_counts, bleu_of_counts
from qvft.evaluation.metrics.captions import caption_batch, score_captions, words_of
from qvft.evaluation.metrics.cider import CorpusCider
from qvft.evaluation.metrics.medical import token_f1
from qvft.evaluation.metrics.ngrams import CaptionBatch
from qvft.evaluation.metrics.rouge import rouge_l
from qvft.evaluation.metrics.tokenize import tokenize
from qvft.evaluation.metrics.unicode_letters import composed
from qvft.evaluation.metrics.vqa import vqa_accuracy
from qvft.inference.reward_function import FUNCS, Further, RewardFunction
from qvft.inference.sampled import Sampled
from qvft.recipe.reward import kinds_of

STOP = "\n"
"""The stop token as a word; no tokenised text has it, since line breaks separate words."""

_CORPUS_NAMES = {"cider": "CIDEr", "bleu4": "Bleu_4", "rouge_l": "ROUGE_L"}
_LEAST_ANSWERS = 2


def reward_functions(
    names: Sequence[str], rows: Sequence[Row], stop_token: bool
) -> dict[str, RewardFunction]:
    """The reward functions of these names.

    Args:
        names: as in `recipe.reward.FUNCS`, or dotted names.
        rows: training rows with all their references, for CIDEr's document frequencies.
        stop_token: whether the stop token is a word of CIDEr's and BLEU's n-grams.

    Raises:
        RecipeError: a dotted name is no function, or the data does not fit a name.
    """
    words = _Words(stop_token)
    metrics: dict[str, Callable[[Sequence[Sampled]], list[float]]] = {
        "bleu4": lambda texts: _bleu4(texts, words),
        "rouge_l": _rouge_l,
        "exact_match": _of_answers(exact_match),
        "token_f1": _of_answers(token_f1),
        "vqa_accuracy": _of_answers(vqa_accuracy),
    }
    if "cider" in names:
        captions = (row.references for row in rows if row.kind == "caption")
        cider = CorpusCider(map(words.references, captions))
        metrics["cider"] = lambda texts: [
            cider(words(text), words.references(text.row.references)) for text in texts
        ]
    if "vqa_accuracy" in names:
        _require_answers(rows)
    return {
        name: _dotted(name) if is_dotted(name) else _reward(name, metrics[name]) for name in names
    }


class _Words:
    """Words of a text and of references for n-grams, with the stop token if asked for."""

    def __init__(self, stop_token: bool) -> None:
        self.stop = [STOP] if stop_token else []
        self.references = cache(self._references)

    def __call__(self, text: Sampled) -> list[str]:
        return words_of(tokenize(composed(text.text))) + (self.stop if text.stopped else [])

    def _references(self, texts: tuple[str, ...]) -> list[list[str]]:
        return [words_of(tokenize(composed(text))) + self.stop for text in texts]


def _bleu4(texts: Sequence[Sampled], words: _Words) -> list[float]:
    known = [words.references(text.row.references) for text in texts]
    batch = CaptionBatch.from_tokens(map(words, texts), known)
    return bleu_of_counts(bleu_counts(batch))[:, 3].tolist()


def _rouge_l(texts: Sequence[Sampled]) -> list[float]:
    known = [text.row.references for text in texts]
    return rouge_l(caption_batch([text.text for text in texts], known)).tolist()


def _of_answers(
    metric: Callable[[str, Sequence[str]], float],
) -> Callable[[Sequence[Sampled]], list[float]]:
    return lambda texts: [metric(text.text, text.row.references) for text in texts]


def _reward(name: str, metric: Callable[[Sequence[Sampled]], list[float]]) -> RewardFunction:
    """A metric of single texts of its kinds of rows; held out, CIDEr, BLEU and ROUGE_L have the
    official definition: without stop token, document frequencies of these references.
    """
    kinds = kinds_of(name)

    def rewards(texts: Sequence[Sampled], further: Further) -> list[float | None]:
        scored = [text for text in texts if text.row.kind in kinds]
        found = iter(metric(scored) if scored else ())
        return [next(found) if text.row.kind in kinds else None for text in texts]

    def held_out(texts: Sequence[Sampled]) -> float | None:
        scored = [text for text in texts if text.row.kind in kinds]
        if not scored:
            return None
        if name in _CORPUS_NAMES:
            references = {str(place): text.row.references for place, text in enumerate(scored)}
            predictions = {str(place): text.text for place, text in enumerate(scored)}
            return score_captions(references, predictions).corpus[_CORPUS_NAMES[name]]
        values = metric(scored)
        return sum(values) / len(values)

    return RewardFunction(f"{FUNCS}.{name}", rewards, held_out)


def _require_answers(rows: Sequence[Row]) -> None:
    for row in rows:
        if row.kind == "question" and len(row.references) < _LEAST_ANSWERS:
            raise RecipeError(
                f"question {row.id} has {len(row.references)} answer",
                where=f"{FUNCS}.vqa_accuracy",
                expected="several human answers per question, ten in VQA v2",
                do="use exact_match or token_f1",
            )


def _dotted(name: str) -> RewardFunction:
    """A function with trl's reward signature: lists in, a number or None per completion out.

    It is called with `prompts` (what the model read before each text, without the image; the
    question alone where texts are not of this run's model), `completions`, `completion_ids` (empty
    where texts come from a file), the columns of each text's row, and `UNTRAINED` or more.
    """
    function: Callable[..., Any] = import_dotted(name, cast(type, Callable), where=FUNCS)

    def rewards(texts: Sequence[Sampled], further: Further) -> Sequence[float | None]:
        columns: dict[str, list[Any]] = {
            "prompts": [text.prompt for text in texts],
            "completions": [text.text for text in texts],
            "completion_ids": [list(text.ids) for text in texts],
            "id": [text.row.id for text in texts],
            "kind": [text.row.kind for text in texts],
            "question": [text.row.question for text in texts],
            "references": [list(text.row.references) for text in texts],
            "image": [text.row.sample.image for text in texts],
            "meta": [dict(text.row.meta) for text in texts],
        }
        return function(**columns, **further)

    return RewardFunction(f"{FUNCS}.{name}", rewards, held_out=None)
