"""The Trainer of a reward phase: learns from samples, evaluates held-out texts."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from torch import Tensor
from torch.utils.data import Sampler

from qvft.training.batches.sampler import PaddedSampler
from qvft.training.phase_setup import PhaseSetup
from qvft.training.recovery.out_of_memory import parts_of
from qvft.training.rewards.collate import GivenBatch
from qvft.training.trainer import QFormerTrainer


class RepeatedSampler(Sampler[int]):
    """Repeats the rows of each optimizer step, for several updates per generation of samples.

    Args:
        order: a sized sampler with `set_epoch`, whose length is a multiple of `window`.
        window: rows of an optimizer step, over all processes and accumulated batches.
    """

    def __init__(self, order: Any, *, window: int, times: int) -> None:
        self._order, self._window, self._times = order, window, times

    def set_epoch(self, epoch: int) -> None:
        self._order.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._order) * self._times

    def __iter__(self) -> Iterator[int]:
        rows = iter(self._order)
        while window := list(islice(rows, self._window)):
            for _ in range(self._times):
                yield from window


class RewardTrainer(QFormerTrainer):
    """Trains a phase whose batches of rows ask for samples, which the step learns from."""

    def __init__(self, setup: PhaseSetup, **further: Any) -> None:
        assert setup.rollouts is not None and setup.held_out is not None
        self.rollouts, self.held_out = setup.rollouts, setup.held_out
        super().__init__(setup, **further)

    def train_order(self, dataset: Any) -> Sampler:
        """As `QFormerTrainer`; the rows of a step come once for each update of its samples."""
        updates = self.rollouts.reward.num_iterations
        if updates == 1:
            return super().train_order(dataset)
        arguments = self.args
        step = arguments.train_batch_size * arguments.world_size
        step *= arguments.gradient_accumulation_steps
        padded = PaddedSampler(self.grouped(dataset), multiple=step)
        return self.by_epoch(RepeatedSampler(padded, window=step, times=updates), dataset)

    def step_batches(self, batches: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """Batches of samples for the rows of these batches."""
        given = [GivenBatch(batch, self.rows_of(batch)) for batch in batches]
        with self.compute_loss_context_manager():
            found, logged = self.rollouts.batches(
                given, step=self.state.global_step, trainer_state=self.state
            )
        self.note_means(logged)
        return found

    def parts_of(
        self, batch: dict[str, Tensor], halvings: int
    ) -> Iterator[tuple[dict[str, Tensor], bool]]:
        """As `QFormerTrainer`, of the texts that were sampled."""
        texts = self.rollouts.texts_of(batch)
        parts = parts_of([text.row.sample.id for text in texts], halvings=halvings)
        for number, part in enumerate(parts, start=1):
            yield self.rollouts.collate([texts[place] for place in part]), number == len(parts)

    def row_means(self, prediction: Any) -> dict[str, float]:
        """As `QFormerTrainer`, with the metrics of greedy texts."""
        means = super().row_means(prediction)
        with self.compute_loss_context_manager():
            return {**self.held_out(self.eval_dataset.rows), **means}
