"""Held-out metric while a reward is trained, and signs that it is exploited: bad endings,
repetition (distinct-n), texts without a stop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qvft.data.rows import Row
from qvft.inference.reward_function import RewardFunction, held_out_score
from qvft.inference.sampled import Sampled
from qvft.models.distributed import from_main_process
from qvft.training.completions import GreedyTexts

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


BAD_ENDINGS = frozenset((
    "a", "an", "the", "in", "for", "at", "of", "with", "before", "after", "on", "upon", "near",
    "to", "is", "are", "am",
))  # fmt: skip
"""Last words of unfinished captions.

Source: github.com/ruotianluo/self-critical.pytorch, captioning/utils/eval_utils.py.
"""


def degeneration(texts: Sequence[Sampled]) -> dict[str, tuple[float, int]]:
    """Sum and count of each sign over texts: their quotient is the mean.

    `mean_length` is in tokens with the stop token, `clipped_ratio` the share without it (both
    trl's names), `bad_endings` the share that ends in one of `BAD_ENDINGS`, `distinct_2` the share
    of different ones among all bigrams (Li et al. 2016, arXiv 1510.03055).
    """
    words = [text.text.lower().split() for text in texts]
    bigrams = [pair for one in words for pair in zip(one, one[1:], strict=False)]
    count = len(texts)
    bad = sum(bool(one) and one[-1].rstrip(".") in BAD_ENDINGS for one in words)
    return {
        "completions/mean_length": (sum(len(text.ids) for text in texts), count),
        "completions/clipped_ratio": (sum(not text.stopped for text in texts), count),
        "completions/bad_endings": (bad, count),
        "completions/distinct_2": (len(set(bigrams)), len(bigrams)),
    }
