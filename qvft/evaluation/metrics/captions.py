"""Scores a set of captions: BLEU, ROUGE_L, CIDEr, on the official scales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np

from qvft.cpu_threads import in_threads
from qvft.errors import DataError
from qvft.evaluation.metrics.bleu import bleu_counts, bleu_of_counts
from qvft.evaluation.metrics.cider import cider_d
from qvft.evaluation.metrics.ngrams import ORDERS, CaptionBatch, FloatArray, mean
from qvft.evaluation.metrics.rouge import rouge_l
from qvft.evaluation.metrics.tokenize import tokens_of_piece
from qvft.evaluation.metrics.word_numbers import numbered_pieces

NAMES = (*(f"Bleu_{order}" for order in range(1, ORDERS + 1)), "ROUGE_L", "CIDEr")


# The tokeniser writes it inside a token such as `1 1/2`. The toolkit's BLEU and CIDEr split tokens
# there and its ROUGE_L does not.
_NO_BREAK = "\u00a0"


@dataclass(frozen=True)
class CaptionScores:
    """Scores of the captions of a set of items.

    Attributes:
        corpus: by name of `NAMES`; BLEU and ROUGE_L from 0 to 1, CIDEr from 0 to 10.
        per_item: the same for each item, by name, then by id. CIDEr's document frequencies are
            the corpus's; a corpus BLEU is not the mean of its items.
        bleu_counts: (n, 10) what corpus BLEU is computed from, see `bleu.bleu_counts`.
    """

    corpus: dict[str, float]
    per_item: dict[str, dict[str, float]]
    bleu_counts: FloatArray


def score_captions(
    references: Mapping[str, Sequence[str]], predictions: Mapping[str, str]
) -> CaptionScores:
    """BLEU-1 to 4, ROUGE_L and CIDEr(-D) of raw captions, composed and tokenised here.

    Args:
        references: one or more captions an id.
        predictions: one caption an id; may be empty, and then scores (nearly) zero.

    Raises:
        DataError: a predicted id has no references, or a text in place of a list of them.
    """
    ids = list(predictions)
    single = next((key for key in ids if isinstance(references.get(key), str)), None)
    if single is not None:  # its letters would be the references
        raise DataError(f"the references of {single!r} are one text", expected="a list of texts")
    unknown = [key for key in ids if not references.get(key)]
    if unknown:
        raise DataError(
            f"{len(unknown)} predictions for ids without references, first {unknown[0]!r}",
            expected="references for every predicted id",
            do="score the split that the predictions were made on",
        )
    known = [references[key] for key in ids]
    return score_batch(ids, caption_batch(list(predictions.values()), known))


def caption_batch(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> CaptionBatch:
    """Tokens of raw captions, one prediction and one or more references per item."""
    numbered = numbered_pieces([*predictions, *chain.from_iterable(references)])
    return CaptionBatch.by_item(*numbered, [*map(len, references)]).split(tokens_of_piece)


def score_batch(ids: Sequence[str], batch: CaptionBatch) -> CaptionScores:
    """`score_captions` of captions that are tokenised already."""
    if not ids:
        nothing: dict[str, dict[str, float]] = {name: {} for name in NAMES}
        return CaptionScores(dict.fromkeys(NAMES, 0.0), nothing, np.zeros((0, 10)))
    has_no_break = any(_NO_BREAK in token for token in batch.vocabulary)
    words = batch.split(lambda token: token.split(_NO_BREAK)) if has_no_break else batch
    both = (partial(rouge_l, batch), partial(bleu_counts, words))
    item_rouge, counts = in_threads(lambda score: score(), both, tried=0)
    corpus_bleu, item_bleu = bleu_of_counts(counts.sum(axis=0)), bleu_of_counts(counts)
    item_cider = cider_d(words)
    values = [*item_bleu.T, item_rouge, item_cider]
    corpus = [*map(float, corpus_bleu), mean(item_rouge), mean(item_cider)]
    return CaptionScores(
        corpus=dict(zip(NAMES, corpus, strict=True)),
        per_item={
            name: dict(zip(ids, column.tolist(), strict=True))
            for name, column in zip(NAMES, values, strict=True)
        },
        bleu_counts=counts,
    )


def words_of(tokens: Sequence[str]) -> list[str]:
    """Words of BLEU's and CIDEr's n-grams from a tokenised caption."""
    return [part for token in tokens for part in token.split(_NO_BREAK)]
