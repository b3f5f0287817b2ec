"""Recovery of a training step: NaN and infinity, loss spikes, out of memory.

Before the optimizer steps, loss and gradient must be finite, and the loss must be no spike. Where
memory runs out the step is repeated with its batches split into parts.
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
    """A step so far: its divisor, its batches, and the losses of those that were taken."""

    items: Tensor | int | None = None
    batches: list[dict[str, Tensor]] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)


Take = Callable[[nn.Module, dict[str, Tensor], Tensor | int | None], Tensor]
"""`Trainer.training_step`: forward and backward pass of a batch; gives its loss."""


class StepRecovery:
    """Stops at a loss that is not finite, skips spikes, and splits batches that do not fit.

    Args:
        trainer: whose steps these are.
        row_names: sample ids by row index.
        spikes: which losses are spikes, and what is done about them; None: nothing.
        batch_tokens: token budget of a batch; None: batches are counted in texts.
        note: logs what happened at a step; None: it is not logged.
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
        self._trainer: TrainerInternals = weakref.proxy(trainer)  # it owns this object
        self._row_names = row_names
        self._spikes = spikes or SpikeRule("off", window=64, deviations=8.0, factor=1.5)
        self._batch_tokens = batch_tokens
        self._note_event = note or (lambda step, facts: None)
        self._step = Step()

    @property
    def state(self) -> RecoveryState:
        """What is remembered; resuming puts another object in its place."""
        callbacks = self._trainer.callback_handler.callbacks
        return next(one for one in callbacks if isinstance(one, RecoveryState))

    def begin(self, items: Tensor | int | None) -> None:
        """A step begins; `items` is what its loss is divided by."""
        self._step = Step(items)

    def training_step(self, model: nn.Module, inputs: dict[str, Tensor], take: Take) -> Tensor:
        """As the Trainer's; where memory runs out, all of the step is taken anew, in smaller parts.

        A pass that broke off has left gradients of some weights behind, so that none can be kept.

        Raises:
            MemoryRanOutError: its batches cannot be halved, or no more.
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
        """Takes the batches without a loss yet; False: memory ran out, they are halved now."""
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
        """A batch's loss; its gradients are added to what is there."""
        total = torch.zeros((), device=self._trainer.args.device)
        for part, is_last in self._parts(batch):
            # Processes exchange gradients once a batch at most.
            exchanged = is_last and not exchanges_afterwards(model)
            no_sync = self._trainer.accelerator.no_sync
            with contextlib.nullcontext() if exchanged else no_sync(model):
                total = total + take(model, part, self._step.items)
        return total

    def _parts(self, batch: dict[str, Tensor]) -> Iterator[tuple[dict[str, Tensor], bool]]:
        """The batch itself or, built anew one by one, its parts; and whether it is the last."""
        halvings = self.state.halvings
        if not halvings:
            yield batch, True
            return
        # As this epoch sees them.
        first = int(self._trainer.state.epoch or 0) * len(self._trainer.train_dataset)
        rows = [self._trainer.train_dataset[first + index] for index in batch["row_index"].tolist()]
        parts = parts_of([row.sample.id for _, row in rows], halvings=halvings)
        collate = cast(Callable[[Sequence[Any]], dict[str, Tensor]], self._trainer.data_collator)
        for number, part in enumerate(parts, start=1):
            yield collate([rows[place] for place in part]), number == len(parts)

    def _halve(self, batch: dict[str, Tensor], error: BaseException) -> None:
        """Has batches taken in parts half as large from now on.

        Raises:
            MemoryRanOutError: they cannot be.
        """
        parts = 2**self.state.halvings
        smaller = self._sizes(2 * parts)
        reason = None
        trainer = self._trainer
        several = trainer.accelerator.num_processes > 1
        if several and not exchanges_afterwards(trainer.model_wrapped):
            reason = "the other processes wait for this one's gradients"
        elif not getattr(trainer.model, "adds_over_rows", False):
            reason = "what a row is to learn depends on the other rows of its batch"
        elif len(batch["row_index"]) <= parts:
            reason = "a single row does not fit"
        if reason is not None:
            rows = -(-len(batch["row_index"]) // parts)
            step = self._trainer.state.global_step + 1
            stop = cannot_halve(reason, step=step, rows=rows, instead=smaller)
            if not self._trainer.is_world_process_zero():
                logger.error("%s", stop)  # the main process has nothing to say of it
            raise stop from error
        self.state.halvings += 1
        self._say_halved(len(batch["row_index"]))

    def _halve_as_others(self) -> None:
        """Has batches taken in parts as small as those of the process with the least memory."""
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
            "memory ran out at step %d with a batch of %d texts: batches are taken in %d parts "
            "from now on; the gradients are the same. To have it so from the start: %s",
            self._trainer.state.global_step + 1,
            rows,
            parts,
            settings_of(sizes),
        )

    def _sizes(self, parts: int) -> dict[str, int]:
        """The keys of `train` with which batches would be as large as such parts of them are."""
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
        """The step's loss over all processes and its gradient's norm, the same in every process."""
        loss = torch.stack(self._step.losses).sum().detach().float()
        size = full_tensor(torch.as_tensor(0.0 if norm is None else norm)).to(loss)
        both: Tensor = self._trainer.accelerator.reduce(torch.stack([loss, size]), reduction="mean")
        return tuple(both.tolist())

    def _found(self) -> list[tuple[str, list[str]]]:
        """What is not finite, with the samples that it concerns, in all processes' batches."""
        trainer = self._trainer
        found: list[NonFinite] = []
        for batch in self._step.batches:
            for part, _ in self._parts(batch):
                one = find_non_finite(trainer.model, trainer.on_device(part), self._loss_of)
                found.extend([one] if one else [])
        return gather_object([(one.what, self._names(one.rows)) for one in found])

    def _names(self, rows: Iterable[int]) -> list[str]:
        """Sample ids of rows; a negative number is no row but fills a process's batch."""
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
        """Notes a spike and drops its gradients, so that the optimizer finds nothing to do."""
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
