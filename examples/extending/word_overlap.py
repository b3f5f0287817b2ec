"""A metric: the share of the reference's different words that an answer holds."""

from qvft.evaluation.metric import Metric, ScoreInfo, by_item
from qvft.evaluation.rows import PredictionRow

SCORE = ScoreInfo(
    "word_overlap",
    unit="percent",
    definition="word_overlap/v1: mean share of the best reference's different words, in lower "
    "case, that the prediction holds.",
    label="word overlap",
    breakdown=True,
)


def overlap(row: PredictionRow) -> dict[str, float]:
    """The score of one answer, from 0 to 1."""
    said = set(row.prediction.lower().split())
    wanted = [set(reference.lower().split()) for reference in row.references]
    return {SCORE.name: max(len(said & words) / max(1, len(words)) for words in wanted)}


METRIC = Metric("word_overlap", "question", by_item(overlap, [SCORE]), (SCORE,))
