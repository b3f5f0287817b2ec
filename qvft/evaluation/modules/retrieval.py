"""Recall at 1, 5 and 10 in both directions as an `evaluate` module."""

from __future__ import annotations

from collections.abc import Sequence

import evaluate
import numpy as np

from qvft.errors import DataError
from qvft.evaluation.metrics.retrieval import DEFINITION, retrieval_scores
from qvft.evaluation.modules.features import SIMILARITIES


class Retrieval(evaluate.Metric):
    """Image-text retrieval from a matrix of similarities, row by row."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            features=SIMILARITIES,
            description=DEFINITION,
            inputs_description="predictions: for each image its similarities to all texts; "
            "references: for each image the columns of its own texts. Gives "
            "image_to_text_recall_at_1, _5, _10 and text_to_image_recall_at_1, _5, _10 in "
            "percent, tied_images and tied_texts.",
            reference_urls=["https://github.com/salesforce/LAVIS"],
            citation="Karpathy and Fei-Fei 2015, Deep Visual-Semantic Alignments for Generating "
            "Image Descriptions, arXiv:1412.2306",
        )

    def _compute(
        self, predictions: Sequence[Sequence[float]], references: Sequence[Sequence[int]]
    ) -> dict[str, float]:
        widths = sorted({len(row) for row in predictions})
        if len(widths) != 1:
            raise DataError(
                f"rows of {', '.join(map(str, widths)) or 'no'} similarities",
                expected="as many as there are texts for every image",
            )
        columns = [column for own in references for column in own]
        if sorted(columns) != list(range(widths[0])):
            raise DataError(
                f"columns of {len(columns)} texts",
                expected=f"each of 0 to {widths[0] - 1} as the text of one image",
            )
        owner = np.empty(widths[0], dtype=np.int64)
        for image, own in enumerate(references):
            owner[list(own)] = image
        scores = retrieval_scores(np.array(predictions, dtype=np.float64), owner.tolist())
        directions = {"image_to_text": scores.image_to_text, "text_to_image": scores.text_to_image}
        figures: dict[str, float] = {
            f"{direction}_recall_at_{cutoff}": value
            for direction, values in directions.items()
            for cutoff, value in values.items()
        }
        return figures | {"tied_images": scores.tied_images, "tied_texts": scores.tied_texts}
