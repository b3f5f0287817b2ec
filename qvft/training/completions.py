"""Texts generated while training: scores that choose the checkpoint, and examples in
completions.jsonl.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qvft.data.rows import Row
from qvft.disk import saving
from qvft.errors import QvftError, RecipeError
from qvft.inference.reward_function import TextScores
from qvft.inference.sampled import Sampled
from qvft.models.distributed import all_gather_object, processes
from qvft.training.greedy_texts import GreedyTexts
from qvft.training.metrics_log import RESUMABLE

FILE = "completions.jsonl"
GENERATED = "generated/"
"""What names of scores of generated texts begin with, in metrics.jsonl after `eval_`."""


@dataclass(frozen=True)
class Completions:
    """Generates evaluation rows.

    Attributes:
        scored: rows whose texts are scored at each evaluation; none unless a score chooses the
            checkpoint.
        examples: rows whose texts are recorded.
        scores: gives scores of texts by the report's names.
        metric: the score that chooses the checkpoint; None: the loss.
    """

    greedy: GreedyTexts
    scored: Sequence[Row]
    examples: Sequence[Row]
    scores: TextScores | None
    metric: str | None

    def __call__(self, *, scored: bool = True) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Scores by name, and the examples as lines of completions.jsonl; equal in all processes.

        Args:
            scored: False: the examples alone.

        Raises:
            RecipeError: the metric scores none of the rows.
        """
        rows = self.scored if scored else ()
        texts = self.greedy([*rows, *self.examples])
        return self._scores(texts[: len(rows)]), [line_of(text) for text in texts[len(rows) :]]

    def _scores(self, texts: Sequence[Sampled]) -> dict[str, float]:
        if self.scores is None or self.metric is None or not texts:
            return {}
        known: Mapping[str, float] = {}
        problem: QvftError | None = None
        if processes().is_main_process:  # once; all processes must agree about the best checkpoint
            try:
                known = self.scores(texts)
                require_score(self.metric, known)
            except QvftError as error:
                problem = error
        known, problem = all_gather_object((known, problem))[0]
        if problem is not None:
            raise problem
        return {f"{GENERATED}{name}": value for name, value in known.items()}


def require_score(metric: str, known: Mapping[str, float]) -> None:
    """Checks that `metric` is among the scores that data.eval has.

    Raises:
        RecipeError: it is not.
    """
    if metric not in known:
        raise RecipeError(
            f"{metric}, which scores no text of data.eval",
            where="train.metric_for_best_model",
            expected=f"loss, {', '.join(known)}",
        )


def references_as_texts(rows: Sequence[Row]) -> list[Sampled]:
    """The first reference of each row, as if it were generated."""
    return [
        Sampled(number, row, row.question or "", (), (0,), row.references[0], True)
        for number, row in enumerate(rows)
    ]


def line_of(text: Sampled) -> dict[str, Any]:
    """A generated text as a line of completions.jsonl, without phase and step."""
    row = text.row
    asked = {} if row.question is None else {"question": row.question}
    return {
        "id": row.id,
        "image": row.sample.image.name,
        **asked,
        "text": text.text,
        "references": list(dict.fromkeys(row.references)),
    }


def append_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Appends lines to completions.jsonl."""
    with saving(path, kept=RESUMABLE), path.open("a", encoding="utf-8") as stream:
        stream.writelines(json.dumps(line) + "\n" for line in lines)
