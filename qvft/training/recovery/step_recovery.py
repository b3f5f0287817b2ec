"""Recovery of a training step: NaN and infinity, loss spikes, out of memory.

Before the optimizer steps, loss and gradient must be finite, and the loss must not be a spike. Out
of memory, the step is repeated with its batches split into parts.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object
from accelerate.utils.memory import clear_device_cache
from torch import Tensor, nn
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from qvft.errors import LossSpikeError
from qvft.log import get_logger
from qvft.models.sharded_weights import full_tensor
from qvft.recipe.train import Spike
from qvft.training.distributed.grad_sync import (
    average_gradients,
    exchanges_afterwards,
    largest_of_all,
)
from qvft.training.recovery.nonfinite import find_non_finite, non_finite_loss, some_of
from qvft.training.recovery.out_of_memory import cannot_halve, is_out_of_memory, settings_of
from qvft.training.recovery.spikes import spike_limit

if TYPE_CHECKING:
    from qvft.training.trainer_internals import TrainerInternals

logger = get_logger("qvft.train")

Pass = Callable[[nn.Module, dict[str, Tensor], Tensor | int | None], Tensor]
"""`Trainer.training_step`: forward and backward pass of a batch; returns its loss."""


class RecoveryState(TrainerCallback, ExportableState):
    """Losses of the last steps and the number of batch halvings; saved with every checkpoint.

    Attributes:
        losses: losses of the last steps, latest last, nats per item.
        halvings: 1: every batch is split into two parts, 2: into four.
    """

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.halvings = 0

    def state(self) -> dict[str, Any]:
        attributes = {"losses": list(self.losses), "halvings": self.halvings}
        return {"args": {}, "attributes": attributes}

    def on_train_begin(self, args, state, control, **kwargs) -> None:  # noqa: ANN001, ANN003
        """Adds an entry to the Trainer state of a checkpoint written without it."""
        state.stateful_callbacks.setdefault(type(self).__name__, self.state())


class StepRecovery:
    """Stops on a non-finite loss, skips loss spikes, and splits batches that do not fit into
    memory.

    Args:
        batch_tokens: token budget of a batch; None: batches are counted in texts.
    """

    def __init__(
        self,
        trainer: TrainerInternals,
        *,
        row_names: Callable[[Sequence[int]], list[str]],
        spikes: Spike,
        batch_tokens: int | None,
        note: Callable[[int, Mapping[str, Any]], None],
    ) -> None:
        trainer.add_callback(RecoveryState())
        self._trainer: TrainerInternals = weakref.proxy(trainer)  # the Trainer owns this object
        self._row_names = row_names
        self._spikes, self._batch_tokens, self._note_event = spikes, batch_tokens, note
        self.begin(None)

    @property
    def state(self) -> RecoveryState:
        """The saved state; resuming replaces it."""
        callbacks = self._trainer.callback_handler.callbacks
        return next(one for one in callbacks if isinstance(one, RecoveryState))

    @property
    def _step(self) -> int:
        """Number of the current step, from 1."""
        return self._trainer.state.global_step + 1

    @property
    def _rows_are(self) -> str:
        """What messages call the rows of a batch."""
        return getattr(self._trainer.model, "rows_are", "texts")

    def begin(self, items: Tensor | int | None) -> None:
        """Begins a step; `items` divides its loss."""
        self._items = items
        self._batches: list[dict[str, Tensor]] = []
        self._losses: list[Tensor] = []

    def training_step(self, model: nn.Module, inputs: dict[str, Tensor], run: Pass) -> Tensor:
        """As the Trainer's; out of memory, the whole step is repeated in smaller parts.

        An interrupted pass leaves gradients on some weights, so none can be kept.

        Raises:
            MemoryRanOutError: its batches cannot be halved (any further).
        """
        self._batches.append(inputs)
        while not self._run_rest(model, run):
            model.zero_grad()
            self._losses.clear()
            clear_device_cache(garbage_collection=True)
        if exchanges_afterwards(model) and self._trainer.accelerator.sync_gradients:
            average_gradients(model)
            # Parts as small as those of the process with the least memory.
            most = largest_of_all(self.state.halvings, self._trainer.args.device)
            if most > self.state.halvings:
                self._set_halvings(most, self._batches[-1])
        return self._losses[-1]

    def _run_rest(self, model: nn.Module, run: Pass) -> bool:
        """Runs the remaining batches; returns False if memory ran out and batches were halved."""
        try:
            for batch in self._batches[len(self._losses) :]:
                total = torch.zeros((), device=self._trainer.args.device)
                for part, is_last in self._parts(batch):
                    # Gradients are synchronised at most once per batch.
                    exchanged = is_last and not exchanges_afterwards(model)
                    no_sync = self._trainer.accelerator.no_sync
                    with contextlib.nullcontext() if exchanged else no_sync(model):
                        total = total + run(model, part, self._items)
                self._losses.append(total)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._halve(batch, error)
            return False
        return True

    def _parts(self, batch: dict[str, Tensor]) -> Iterator[tuple[dict[str, Tensor], bool]]:
        """The batch itself or, collated one by one, its parts; and whether it is the last."""
        halvings = self.state.halvings
        if not halvings:
            yield batch, True
            return
        yield from self._trainer.parts_of(batch, halvings)

    def _halve(self, batch: dict[str, Tensor], error: BaseException) -> None:
        """Halves the size of batch parts from now on; raises MemoryRanOutError if it cannot."""
        trainer, parts, rows = self._trainer, 2**self.state.halvings, len(batch["row_index"])
        several = trainer.accelerator.num_processes > 1
        reason = None
        if several and not exchanges_afterwards(trainer.model_wrapped):
            reason = "the other processes wait for this one's gradients"
        elif not getattr(trainer.model, "adds_over_rows", False):
            reason = "the loss of a row depends on the other rows of its batch"
        elif rows <= parts:
            reason = "a single row does not fit"
        if reason is not None:
            smaller = self._sizes(2 * parts)
            stop = cannot_halve(
                reason,
                step=self._step,
                rows=-(-rows // parts),
                rows_are=self._rows_are,
                instead=smaller,
            )
            if not trainer.is_world_process_zero():
                logger.error("%s", stop)  # not logged by the main process
            raise stop from error
        self._set_halvings(self.state.halvings + 1, batch)

    def _set_halvings(self, halvings: int, batch: dict[str, Tensor]) -> None:
        """Splits batches into 2**halvings parts from now on, and logs it."""
        self.state.halvings = halvings
        if not self._trainer.is_world_process_zero():
            return
        sizes = self._sizes(2**halvings)
        self._note_event(self._step, {"out_of_memory": sizes})
        logger.warning(
            "memory ran out at step %d with a batch of %d %s: batches are split into %d "
            "parts from now on; gradients are unchanged. To start with this: %s",
            self._step,
            len(batch["row_index"]),
            self._rows_are,
            2**halvings,
            settings_of(sizes),
        )

    def _sizes(self, parts: int) -> dict[str, int]:
        """Keys of `train` that would make batches as small as these parts."""
        arguments = self._trainer.args
        key, size = "per_device_train_batch_size", arguments.per_device_train_batch_size
        if self._batch_tokens is not None:
            key, size = "batch_tokens", self._batch_tokens
        batches = arguments.gradient_accumulation_steps * parts
        return {key: -(-size // parts), "gradient_accumulation_steps": batches}

    def check(self, model: nn.Module, norm: Tensor | float | None) -> None:
        """Checks loss and gradient norm before the optimizer steps.

        Both are means over all processes, so that all decide alike.

        Raises:
            NonFiniteLossError: the step's loss or this norm is NaN or infinite, in any process.
            LossSpikeError: the loss is a spike, and the policy is to stop.
        """
        trainer = self._trainer
        own = torch.stack(self._losses).sum().detach().float()
        size = full_tensor(torch.as_tensor(0.0 if norm is None else norm)).to(own)
        both: Tensor = trainer.accelerator.reduce(torch.stack([own, size]), reduction="mean")
        loss, mean_norm = both.tolist()
        if not (isfinite(loss) and isfinite(mean_norm)):
            raise non_finite_loss(loss, mean_norm, step=self._step, found=self._find_non_finite())
        limit = None
        if trainer.state.global_step >= trainer.args.get_warmup_steps(trainer.state.max_steps):
            limit = spike_limit(self._spikes, self.state.losses)
        self.state.losses = [*self.state.losses, loss][-self._spikes.window :]
        if limit is not None and loss > limit:
            self._skip_spike(model, loss, limit)

    def _find_non_finite(self) -> list[tuple[str, list[str]]]:
        """Non-finite values with their samples, from the batches of all processes."""
        trainer = self._trainer
        found: list[tuple[str, list[str]]] = []
        for batch in self._batches:
            for part, _ in self._parts(batch):
                one = find_non_finite(trainer.model, trainer.on_device(part), self._loss_of)
                if one is not None:
                    found.append((one[0], self._names(one[1])))
        return gather_object(found)

    def _names(self, rows: Iterable[int]) -> list[str]:
        """Sample ids of rows; a negative number is a padding row."""
        return self._row_names([row for row in rows if row >= 0])

    def _loss_of(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Any]]:
        trainer = self._trainer
        with trainer.compute_loss_context_manager():
            return trainer.compute_loss(  # type: ignore[return-value]  # a pair, as asked
                trainer.model, dict(batch), return_outputs=True, num_items_in_batch=self._items
            )

    def _skip_spike(self, model: nn.Module, loss: float, limit: float) -> None:
        """Logs a spike and drops its gradients, so that the optimizer does nothing."""
        policy = self._spikes.policy
        rows = [row for batch in self._batches for row in batch["row_index"].tolist()]
        samples = gather_object(self._names(rows))
        facts = {"loss": loss, "limit": limit, "policy": policy, "samples": samples}
        if self._trainer.is_world_process_zero():
            self._note_event(self._step, {"spike": facts})
        message = f"loss {loss:.4g} at step {self._step} is a spike: it is above {limit:.4g}"
        if policy == "stop":
            raise LossSpikeError(
                f"{message} (train.spike); samples: {some_of(samples)}; no weight has changed by "
                "it, and earlier checkpoints stay; look at these samples, or resume from the last "
                "checkpoint without such steps: train.spike.policy=skip train.resume=auto"
            )
        logger.warning("%s; skipped; samples: %s", message, some_of(samples))
        model.zero_grad()
