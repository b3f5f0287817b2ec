"""Held-out metric while a reward is trained: greedy texts of the evaluation data, scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedModel

from qvft.data.collate import Collator
from qvft.data.rows import Row
from qvft.errors import QvftError
from qvft.inference.distributed import share
from qvft.inference.reward_function import RewardFunction, held_out_score
from qvft.inference.sample import sample_rows
from qvft.inference.sampled import Sampled
from qvft.models.distributed import all_gather_object, processes
from qvft.models.forward_stages import encode_features, encode_vision
from qvft.training.rewards.degeneration import degeneration

BEST = "held_out"
"""Name of the metric that chooses the checkpoint, without `eval_`."""


@dataclass(frozen=True)
class HeldOut:
    """Metrics of the greedy texts of evaluation rows.

    Attributes:
        functions: metrics by name, of `weights` and `metric`.
        weights: weight of each in their sum.
        metric: the one that chooses the checkpoint; None: their sum.
        max_new_tokens: longest text by kind of row.
        batch_size: rows per pass.
    """

    model: PreTrainedModel
    collator: Collator
    functions: Mapping[str, RewardFunction]
    weights: Mapping[str, float]
    metric: str | None
    max_new_tokens: Mapping[str, int]
    batch_size: int

    def __call__(self, rows: Sequence[Row]) -> dict[str, float]:
        """The metrics over all rows, the same in every process, which share the rows' images.

        `reward` is the weighted sum, `held_out` what chooses the checkpoint.
        """
        texts = self._texts(rows)
        known = self._scores(texts)
        reward = sum(weight * known.get(name, 0.0) for name, weight in self.weights.items())
        signs = degeneration(texts)
        return {
            **{f"rewards/{name}/mean": value for name, value in known.items()},
            **{name: total / count for name, (total, count) in signs.items() if count},
            "reward": reward,
            BEST: reward if self.metric is None else known.get(self.metric, float("nan")),
        }

    def _scores(self, texts: Sequence[Sampled]) -> dict[str, float]:
        """What each function says, asked in one process: one of the user's own may vary, and
        processes that disagree about the best checkpoint would wait for each other for ever."""
        known: dict[str, float] = {}
        problem: QvftError | None = None
        if processes().is_main_process:
            try:
                found = {name: held_out_score(one, texts) for name, one in self.functions.items()}
                known = {name: value for name, value in found.items() if value is not None}
            except QvftError as error:
                problem = error  # raised in all processes
        known, problem = all_gather_object((known, problem))[0]
        if problem is not None:
            raise problem
        return known

    def _texts(self, rows: Sequence[Row]) -> list[Sampled]:
        """The greedy text of each row."""
        state = processes()
        names = [row.sample.id for row in rows]
        own = share(names, rank=state.process_index, world=state.num_processes)
        problem: QvftError | None = None
        found: list[Sampled] = []
        try:
            for start in range(0, len(own), self.batch_size):
                part = own[start : start + self.batch_size]
                found += self._written([(number, rows[number]) for number in part])
        except QvftError as error:
            problem = error  # raised in all processes, which would wait for this one
        # Without the rows, whose images may be in memory.
        plain = [replace(text, row=None) for text in found]  # type: ignore[arg-type]
        texts: dict[int, Sampled] = {}
        for others, failed in all_gather_object((plain, problem)):
            if failed is not None:
                raise failed
            texts |= {text.number: replace(text, row=rows[text.number]) for text in others}
        return [texts[number] for number in range(len(rows))]

    @torch.no_grad()
    def _written(self, rows: Sequence[tuple[int, Row]]) -> list[Sampled]:
        images: dict[str, int] = {}
        for _, row in rows:
            images.setdefault(row.sample.id, len(images))
        sources = list({row.sample.id: row.sample.image for _, row in rows}.values())
        seen = self.collator.seen(sources, [0] * len(sources))
        device = self.model.device
        if "features" in seen:
            features = seen["features"].to(device)
        else:
            features = encode_vision(self.model, seen["pixel_values"].to(device))
        found = sample_rows(
            self.model,
            self.collator,
            rows,
            states=encode_features(self.model, features),
            image_index=[images[row.sample.id] for _, row in rows],
            count=0,
            max_new_tokens=self.max_new_tokens,
            temperature=1.0,
            seed=(),
            prompts_at_once=self.batch_size,
        )
        return [text for (text,) in found]
