"""Texts generated while training: scores that choose the checkpoint, examples for a reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qvft.data.rows import Row
from qvft.errors import RecipeError
from qvft.inference.reward_function import TextScores
from qvft.inference.sampled import Sampled
from qvft.models.distributed import from_main_process
from qvft.training.greedy_texts import GreedyTexts

FILE = "completions.jsonl"
GENERATED = "generated/"
"""What names of scores of generated texts begin with, in metrics.jsonl after `eval_`."""


@dataclass(frozen=True)
class Completions:
    """Generates evaluation rows.

    Attributes:
        scored: rows whose texts are scored; none unless a score chooses the checkpoint.
        metric: the score that chooses the checkpoint.
    """

    greedy: GreedyTexts
    scored: Sequence[Row]
    examples: Sequence[Row]
    scores: TextScores | None
    metric: str

    def __call__(self, *, scored: bool = True) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Scores by name, and the examples as lines of completions.jsonl, in every process."""
        rows = self.scored if scored else ()
        texts = self.greedy([*rows, *self.examples])
        known: Mapping[str, float] = {}
        if rows and self.scores is not None:
            scores = self.scores
            known = from_main_process(lambda: scores(texts[: len(rows)]))
            require_score(self.metric, known)
        return {f"{GENERATED}{name}": value for name, value in known.items()}, [
            {
                "id": text.row.id,
                "image": text.row.sample.image.name,
                **({} if text.row.question is None else {"question": text.row.question}),
                "text": text.text,
                "references": list(dict.fromkeys(text.row.references)),
            }
            for text in texts[len(rows) :]
        ]


def require_score(metric: str, known: Mapping[str, float]) -> None:
    """Raises RecipeError if `metric` is not among the scores that data.eval has."""
    if metric not in known:
        raise RecipeError(
            f"{metric}, which scores no text of data.eval",
            where="train.metric_for_best_model",
            expected=f"loss, {', '.join(known)}",
        )


def reference_as_text(number: int, row: Row) -> Sampled:
    """The first reference of a row, as if it were generated."""
    return Sampled(number, row, row.question or "", (), (0,), row.references[0], True)
