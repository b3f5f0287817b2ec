"""Recovery of a training step: NaN and infinity, loss spikes, out of memory.

Before the optimizer steps, loss and gradient must be finite, and the loss must not be a spike. Out
of memory, the step is repeated with its batches split into parts.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any, cast

import torch
from accelerate.utils import gather_object
from accelerate.utils.memory import clear_device_cache
from torch import Tensor, nn

from qvft.errors import LossSpikeError
from qvft.log import get_logger
from qvft.models.sharded_weights import full_tensor
from qvft.training.distributed.grad_sync import (
    average_gradients,
    exchanges_afterwards,
    largest_of_all,
)
from qvft.training.recovery.nonfinite import NonFinite, find_non_finite
from qvft.training.recovery.out_of_memory import is_out_of_memory, parts_of
from qvft.training.recovery.spikes import SpikeRule
from qvft.training.recovery.state import RecoveryState
from qvft.training.recovery.step_errors import cannot_halve, non_finite_loss, settings_of, some_of

if TYPE_CHECKING:
    from qvft.training.trainer_internals import TrainerInternals

logger = get_logger("qvft.train")


@dataclass
class Step:
    """State of the current step: divisor, batches, losses so far."""

    items: Tensor | int | None = None
    batches: list[dict[str, Tensor]] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)


Take = Callable[[nn.Module, dict[str, Tensor], Tensor | int | None], Tensor]
"""`Trainer.training_step`: forward and backward pass of a batch; returns its loss."""


class StepRecovery:
    """Stops on a non-finite loss, skips loss spikes, and splits batches that do not fit into
    memory.

    Args:
        trainer: the Trainer.
        row_names: sample ids by row index.
        spikes: loss spike rule and policy; None: off.
        batch_tokens: token budget of a batch; None: batches are counted in texts.
        note: logs an event at a step; None: no log.
    """

    def __init__(
        self,
        trainer: TrainerInternals,
        *,
        row_names: Callable[[Sequence[int]], list[str]],
        spikes: SpikeRule | None = None,
        batch_tokens: int | None = None,
        note: Callable[[int, Mapping[str, Any]], None] | None = None,
    ) -> None:
        trainer.add_callback(RecoveryState())
        self._trainer: TrainerInternals = weakref.proxy(trainer)  # the Trainer owns this object
        self._row_names = row_names
        self._spikes = spikes or SpikeRule("off", window=64, deviations=8.0, factor=1.5)
        self._batch_tokens = batch_tokens
        self._note_event = note or (lambda step, facts: None)
        self._step = Step()

    @property
    def state(self) -> RecoveryState:
        """The saved state; resuming replaces it."""
        callbacks = self._trainer.callback_handler.callbacks
        return next(one for one in callbacks if isinstance(one, RecoveryState))

    def begin(self, items: Tensor | int | None) -> None:
        """Begins a step; `items` divides its loss."""
        self._step = Step(items)

    def training_step(self, model: nn.Module, inputs: dict[str, Tensor], take: Take) -> Tensor:
        """As the Trainer's; out of memory, the whole step is repeated in smaller parts.

        An interrupted pass leaves gradients on some weights, so none can be kept.

        Raises:
            MemoryRanOutError: its batches cannot be halved (any further).
        """
        self._step.batches.append(inputs)
        while not self._take_rest(model, take):
            model.zero_grad()
            self._step.losses.clear()
            clear_device_cache(garbage_collection=True)
        if exchanges_afterwards(model) and self._trainer.accelerator.sync_gradients:
            average_gradients(model)
            self._halve_as_others()
        return self._step.losses[-1]

    def _take_rest(self, model: nn.Module, take: Take) -> bool:
        """Runs the remaining batches; returns False if memory ran out and batches were halved."""
        step = self._step
        try:
            for batch in step.batches[len(step.losses) :]:
                step.losses.append(self._take(model, batch, take))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._halve(batch, error)
            return False
        return True

    def _take(self, model: nn.Module, batch: dict[str, Tensor], take: Take) -> Tensor:
        """Loss of a batch; its gradients are accumulated."""
        total = torch.zeros((), device=self._trainer.args.device)
        for part, is_last in self._parts(batch):
            # Gradients are synchronised at most once per batch.
            exchanged = is_last and not exchanges_afterwards(model)
            no_sync = self._trainer.accelerator.no_sync
            with contextlib.nullcontext() if exchanged else no_sync(model):
                total = total + take(model, part, self._step.items)
        return total

    def _parts(self, batch: dict[str, Tensor]) -> Iterator[tuple[dict[str, Tensor], bool]]:
        """The batch itself or, collated one by one, its parts; and whether it is the last."""
        halvings = self.state.halvings
        if not halvings:
            yield batch, True
            return
        # With the views of this epoch.
        first = int(self._trainer.state.epoch or 0) * len(self._trainer.train_dataset)
        rows = [self._trainer.train_dataset[first + index] for index in batch["row_index"].tolist()]
        parts = parts_of([row.sample.id for _, row in rows], halvings=halvings)
        collate = cast(Callable[[Sequence[Any]], dict[str, Tensor]], self._trainer.data_collator)
        for number, part in enumerate(parts, start=1):
            yield collate([rows[place] for place in part]), number == len(parts)

    def _halve(self, batch: dict[str, Tensor], error: BaseException) -> None:
        """Halves the size of batch parts from now on.

        Raises:
            MemoryRanOutError: they cannot be halved.
        """
        parts = 2**self.state.halvings
        smaller = self._sizes(2 * parts)
        reason = None
        trainer = self._trainer
        several = trainer.accelerator.num_processes > 1
        if several and not exchanges_afterwards(trainer.model_wrapped):
            reason = "the other processes wait for this one's gradients"
        elif not getattr(trainer.model, "adds_over_rows", False):
            reason = "the loss of a row depends on the other rows of its batch"
        elif len(batch["row_index"]) <= parts:
            reason = "a single row does not fit"
        if reason is not None:
            rows = -(-len(batch["row_index"]) // parts)
            step = self._trainer.state.global_step + 1
            stop = cannot_halve(reason, step=step, rows=rows, instead=smaller)
            if not self._trainer.is_world_process_zero():
                logger.error("%s", stop)  # not logged by the main process
            raise stop from error
        self.state.halvings += 1
        self._say_halved(len(batch["row_index"]))

    def _halve_as_others(self) -> None:
        """Uses parts as small as those of the process with the least memory."""
        most = largest_of_all(self.state.halvings, self._trainer.args.device)
        if most > self.state.halvings:
            self.state.halvings = most
            self._say_halved(len(self._step.batches[-1]["row_index"]))

    def _say_halved(self, rows: int) -> None:
        if not self._trainer.is_world_process_zero():
            return
        parts = 2**self.state.halvings
        sizes = self._sizes(parts)
        self._note_event(self._trainer.state.global_step + 1, {"out_of_memory": sizes})
        logger.warning(
            "memory ran out at step %d with a batch of %d texts: batches are split into %d "
            "parts from now on; gradients are unchanged. To start with this: %s",
            self._trainer.state.global_step + 1,
            rows,
            parts,
            settings_of(sizes),
        )

    def _sizes(self, parts: int) -> dict[str, int]:
        """Keys of `train` that would make batches as small as these parts."""
        arguments = self._trainer.args
        size = {"per_device_train_batch_size": arguments.per_device_train_batch_size}
        if self._batch_tokens is not None:
            size = {"batch_tokens": self._batch_tokens}
        shares = {key: -(-count // parts) for key, count in size.items()}
        batches = arguments.gradient_accumulation_steps * parts
        return {**shares, "gradient_accumulation_steps": batches}

    def check(self, model: nn.Module, norm: Tensor | float | None) -> None:
        """Checks loss and gradient norm before the optimizer steps.

        Raises:
            NonFiniteLossError: the step's loss or this norm is NaN or infinite, in any process.
            LossSpikeError: the loss is a spike, and the policy is to stop.
        """
        loss, size = self._agreed(norm)
        trainer = self._trainer
        number = trainer.state.global_step + 1
        if not (isfinite(loss) and isfinite(size)):
            raise non_finite_loss(loss, size, step=number, found=self._found())
        limit = None
        if trainer.state.global_step >= trainer.args.get_warmup_steps(trainer.state.max_steps):
            limit = self._spikes.limit(self.state.losses)
        self.state.remember(loss, window=self._spikes.window)
        if limit is not None and loss > limit:
            self._leave_out(model, loss, limit)

    def _agreed(self, norm: Tensor | float | None) -> tuple[float, float]:
        """Loss of the step and gradient norm over all processes, the same in every process."""
        loss = torch.stack(self._step.losses).sum().detach().float()
        size = full_tensor(torch.as_tensor(0.0 if norm is None else norm)).to(loss)
        both: Tensor = self._trainer.accelerator.reduce(torch.stack([loss, size]), reduction="mean")
        return tuple(both.tolist())

    def _found(self) -> list[tuple[str, list[str]]]:
        """Non-finite values with their samples, from the batches of all processes."""
        trainer = self._trainer
        found: list[NonFinite] = []
        for batch in self._step.batches:
            for part, _ in self._parts(batch):
                one = find_non_finite(trainer.model, trainer.on_device(part), self._loss_of)
                found.extend([one] if one else [])
        return gather_object([(one.what, self._names(one.rows)) for one in found])

    def _names(self, rows: Iterable[int]) -> list[str]:
        """Sample ids of rows; a negative number is a padding row."""
        return self._row_names([row for row in rows if row >= 0])

    def _loss_of(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Any]]:
        trainer = self._trainer
        with trainer.compute_loss_context_manager():
            found = trainer.compute_loss(
                trainer.model,
                dict(batch),
                return_outputs=True,
                num_items_in_batch=self._step.items,
            )
        return cast(tuple[Tensor, Mapping[str, Any]], found)

    def _leave_out(self, model: nn.Module, loss: float, limit: float) -> None:
        """Logs a spike and drops its gradients, so that the optimizer does nothing."""
        step, policy = self._trainer.state.global_step + 1, self._spikes.policy
        rows = [row for batch in self._step.batches for row in batch["row_index"].tolist()]
        samples = gather_object(self._names(rows))
        facts = {"loss": loss, "limit": limit, "policy": policy, "samples": samples}
        if self._trainer.is_world_process_zero():
            self._note_event(step, {"spike": facts})
        message = f"loss {loss:.4g} at step {step} is a spike: it is above {limit:.4g}"
        if policy == "stop":
            raise LossSpikeError(
                f"{message} (train.spike); samples: {some_of(samples)}; no weight has moved by it, "
                "and checkpoints written before stay; look at these samples, or go on from the "
                "last checkpoint without such steps: train.spike.policy=skip train.resume=auto"
            )
        logger.warning("%s; left out; samples: %s", message, some_of(samples))
        model.zero_grad()
