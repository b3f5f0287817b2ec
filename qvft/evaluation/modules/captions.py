"""BLEU-1 to 4, ROUGE_L and CIDEr of captions as an `evaluate` module."""

from __future__ import annotations

from collections.abc import Sequence

import evaluate

from qvft.errors import DataError
from qvft.evaluation.metrics.captions import score_captions
from qvft.evaluation.modules.features import TEXTS


class Captions(evaluate.Metric):
    """Scores of a set of captions, each beside one or more human ones."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            features=TEXTS,
            description="BLEU-1 to 4, ROUGE_L and CIDEr (CIDEr-D) as pycocoevalcap 1.2 computes "
            "them, on its PTB tokens, without Java.",
            inputs_description="predictions: one caption an image; references: a list of "
            "captions per image. Gives Bleu_1 to Bleu_4 and ROUGE_L from 0 to 1, CIDEr from 0 to "
            "10.",
            reference_urls=["https://github.com/salaniz/pycocoevalcap"],
            citation="Chen et al. 2015, Microsoft COCO Captions: Data Collection and Evaluation "
            "Server, arXiv:1504.00325",
        )

    def _compute(
        self, predictions: Sequence[str], references: Sequence[Sequence[str]]
    ) -> dict[str, float]:
        if not len(predictions):
            raise DataError("no predictions", expected="a caption and its references, or more")
        names = [str(number) for number in range(len(predictions))]
        return score_captions(
            dict(zip(names, references, strict=True)), dict(zip(names, predictions, strict=True))
        ).corpus
