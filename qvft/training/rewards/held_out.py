"""Held-out metric while a reward is trained: greedy texts of the evaluation data, scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qvft.data.rows import Row
from qvft.inference.reward_function import RewardFunction, held_out_score
from qvft.inference.sampled import Sampled
from qvft.models.distributed import from_main_process
from qvft.training.completions import GreedyTexts
from qvft.training.rewards.degeneration import degeneration

BEST = "held_out"
"""Name of the metric that chooses the checkpoint, without `eval_`."""


@dataclass(frozen=True)
class HeldOut:
    """Metrics of the greedy texts of evaluation rows.

    Attributes:
        metric: the one that chooses the checkpoint; None: their sum.
    """

    greedy: GreedyTexts
    functions: Mapping[str, RewardFunction]
    weights: Mapping[str, float]
    metric: str | None

    def __call__(self, rows: Sequence[Row]) -> dict[str, float]:
        """The metrics over all rows, the same in every process, which share the rows' images.

        `reward` is the weighted sum, `held_out` what chooses the checkpoint.
        """
        texts = self.greedy(rows)
        known = from_main_process(lambda: self._scores(texts))
        reward = sum(weight * known.get(name, 0.0) for name, weight in self.weights.items())
        signs = degeneration(texts)
        return {
            **{f"rewards/{name}/mean": value for name, value in known.items()},
            **{name: total / count for name, (total, count) in signs.items() if count},
            "reward": reward,
            BEST: reward if self.metric is None else known.get(self.metric, float("nan")),
        }

    def _scores(self, texts: Sequence[Sampled]) -> dict[str, float]:
        found = {name: held_out_score(one, texts) for name, one in self.functions.items()}
        return {name: value for name, value in found.items() if value is not None}
