"""A `transformers.Trainer` that looks at a step before it lets the weights move.

Before the optimizer steps, loss and gradient must be finite, and the loss must be no spike. Where
memory runs out the step begins anew, its batches taken in parts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import torch
from accelerate.utils import gather_object
from accelerate.utils.memory import clear_device_cache
from torch import Tensor, nn
from transformers import Trainer

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

logger = get_logger("qvft.train")


@dataclass
class Step:
    """A step so far: its divisor, its batches, and the losses of those that were taken."""

    items: Tensor | int | None = None
    batches: list[dict[str, Tensor]] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)


class RecoveringTrainer(Trainer):
    """Stops at what is not finite, leaves out spikes, and halves batches that do not fit.

    Args:
        row_names: sample ids by row index.
        spikes: which losses are spikes, and what is done about them; None: nothing.
        batch_tokens: of a batch at most; None: batches are counted in texts.
        note: writes down what happened at a step; None: nobody wants to know.
        further arguments: as `transformers.Trainer`.
    """

    def __init__(
        self,
        *args: Any,
        row_names: Callable[[Sequence[int]], list[str]],
        spikes: SpikeRule | None = None,
        batch_tokens: int | None = None,
        note: Callable[[int, Mapping[str, Any]], None] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.add_callback(RecoveryState())
        self._row_names = row_names
        self._spikes = spikes or SpikeRule("off", window=64, deviations=8.0, factor=1.5)
        self._batch_tokens = batch_tokens
        self._note_event = note or (lambda step, facts: None)
        self._step = Step()

    @property
    def recovery(self) -> RecoveryState:
        """What is remembered; resuming puts another object in its place."""
        found = (one for one in self.callback_handler.callbacks if isinstance(one, RecoveryState))
        return next(found)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """As the Trainer's; a step begins here."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._step = Step(items)
        return batches, items

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """As the Trainer's; where memory runs out, all of the step is taken anew, in smaller parts.

        A pass that broke off has left gradients of some weights behind, so that none can be kept.

        Raises:
            MemoryRanOutError: its batches cannot be halved, or no more.
        """
        self._step.batches.append(inputs)
        while not self._take_rest(model):
            model.zero_grad()
            self._step.losses.clear()
            clear_device_cache(garbage_collection=True)
        if exchanges_afterwards(model) and self.accelerator.sync_gradients:
            average_gradients(model)
            self._halve_as_others()
        return self._step.losses[-1]

    def _take_rest(self, model: nn.Module) -> bool:
        """Takes the batches without a loss yet; False: memory ran out, they are halved now."""
        step = self._step
        try:
            for batch in step.batches[len(step.losses) :]:
                step.losses.append(self._take(model, batch))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._halve(batch, error)
            return False
        return True

    def _take(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """A batch's loss; its gradients are added to what is there."""
        total = torch.zeros((), device=self.args.device)
        for part, is_last in self._parts(batch):
            # Processes exchange gradients once a batch at most.
            exchanged = is_last and not exchanges_afterwards(model)
            wait = contextlib.nullcontext() if exchanged else self.accelerator.no_sync(model)
            with wait:
                total = total + super().training_step(model, part, self._step.items)
        return total

    def _parts(self, batch: dict[str, Tensor]) -> Iterator[tuple[dict[str, Tensor], bool]]:
        """The batch itself or, built anew one by one, its parts; and whether it is the last."""
        halvings = self.recovery.halvings
        if not halvings:
            yield batch, True
            return
        # As this epoch sees them.
        first = int(self.state.epoch or 0) * len(self.train_dataset)
        rows = [self.train_dataset[first + index] for index in batch["row_index"].tolist()]
        parts = parts_of([row.sample.id for _, row in rows], halvings=halvings)
        for number, part in enumerate(parts, start=1):
            yield self.data_collator([rows[place] for place in part]), number == len(parts)

    def _halve(self, batch: dict[str, Tensor], error: BaseException) -> None:
        """Has batches taken in parts half as large from now on.

        Raises:
            MemoryRanOutError: they cannot be.
        """
        parts = 2**self.recovery.halvings
        smaller = self._sizes(2 * parts)
        reason = None
        if self.accelerator.num_processes > 1 and not exchanges_afterwards(self.model_wrapped):
            reason = "the other processes wait for this one's gradients"
        elif not getattr(self.model, "adds_over_rows", False):
            reason = "what a row is to learn depends on the other rows of its batch"
        elif len(batch["row_index"]) <= parts:
            reason = "a single row does not fit"
        if reason is not None:
            rows = -(-len(batch["row_index"]) // parts)
            step = self.state.global_step + 1
            stop = cannot_halve(reason, step=step, rows=rows, instead=smaller)
            if not self.is_world_process_zero():
                logger.error("%s", stop)  # the main process has nothing to say of it
            raise stop from error
        self.recovery.halvings += 1
        self._say_halved(len(batch["row_index"]))

    def _halve_as_others(self) -> None:
        """Has batches taken in parts as small as those of the process with the least memory."""
        most = largest_of_all(self.recovery.halvings, self.args.device)
        if most > self.recovery.halvings:
            self.recovery.halvings = most
            self._say_halved(len(self._step.batches[-1]["row_index"]))

    def _say_halved(self, rows: int) -> None:
        if not self.is_world_process_zero():
            return
        parts = 2**self.recovery.halvings
        sizes = self._sizes(parts)
        self._note_event(self.state.global_step + 1, {"out_of_memory": sizes})
        logger.warning(
            "memory ran out at step %d with a batch of %d texts: batches are taken in %d parts "
            "from now on; the gradients are the same. To have it so from the start: %s",
            self.state.global_step + 1,
            rows,
            parts,
            settings_of(sizes),
        )

    def _sizes(self, parts: int) -> dict[str, int]:
        """The keys of `train` with which batches would be as large as such parts of them are."""
        size = {"per_device_train_batch_size": self.args.per_device_train_batch_size}
        if self._batch_tokens is not None:
            size = {"batch_tokens": self._batch_tokens}
        shares = {key: -(-count // parts) for key, count in size.items()}
        batches = self.args.gradient_accumulation_steps * parts
        return {**shares, "gradient_accumulation_steps": batches}

    def _get_grad_norm(
        self, model: nn.Module, grad_norm: Tensor | float | None = None
    ) -> Tensor | float | None:
        """As the Trainer's, which asks for it last before the weights move.

        Raises:
            NonFiniteLossError: the step's loss or this norm is NaN or infinite, in any process.
            LossSpikeError: the loss is a spike, and the policy is to stop.
        """
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        loss, size = self._agreed(norm)
        number = self.state.global_step + 1
        if not (isfinite(loss) and isfinite(size)):
            raise non_finite_loss(loss, size, step=number, found=self._found())
        limit = None
        if self.state.global_step >= self.args.get_warmup_steps(self.state.max_steps):
            limit = self._spikes.limit(self.recovery.losses)
        self.recovery.remember(loss, window=self._spikes.window)
        if limit is not None and loss > limit:
            self._leave_out(model, loss, limit)
        return norm

    def _agreed(self, norm: Tensor | float | None) -> tuple[float, float]:
        """The step's loss over all processes and its gradient's norm, the same in every process."""
        loss = torch.stack(self._step.losses).sum().detach().float()
        size = full_tensor(torch.as_tensor(0.0 if norm is None else norm)).to(loss)
        both: Tensor = self.accelerator.reduce(torch.stack([loss, size]), reduction="mean")
        return tuple(both.tolist())

    def _found(self) -> list[tuple[str, list[str]]]:
        """What is not finite, with the samples that it concerns, in all processes' batches."""
        found: list[NonFinite] = []
        for batch in self._step.batches:
            for part, _ in self._parts(batch):
                one = find_non_finite(self.model, self._prepare_inputs(part), self._loss_of)
                found.extend([one] if one else [])
        return gather_object([(one.what, self._names(one.rows)) for one in found])

    def _names(self, rows: Iterable[int]) -> list[str]:
        """Sample ids of rows; a negative number is no row but fills a process's batch."""
        return self._row_names([row for row in rows if row >= 0])

    def _loss_of(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Any]]:
        with self.compute_loss_context_manager():
            return self.compute_loss(
                self.model, dict(batch), return_outputs=True, num_items_in_batch=self._step.items
            )

    def _leave_out(self, model: nn.Module, loss: float, limit: float) -> None:
        """Notes a spike and drops its gradients, so that the optimizer finds nothing to do."""
        step, policy = self.state.global_step + 1, self._spikes.policy
        rows = [row for batch in self._step.batches for row in batch["row_index"].tolist()]
        samples = gather_object(self._names(rows))
        facts = {"loss": loss, "limit": limit, "policy": policy, "samples": samples}
        if self.is_world_process_zero():
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
