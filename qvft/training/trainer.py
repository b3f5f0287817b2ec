"""The `transformers.Trainer` subclass: losses, parameter groups, data loaders, checkpoints.

Overrides of the Trainer's public methods are here, those of its private ones in
`trainer_internals.py`; NaN, loss spikes and out-of-memory are `recovery/step_recovery.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from accelerate.data_loader import prepare_data_loader
from numpy import isfinite
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import PreTrainedModel

from qvft.errors import NonFiniteLossError
from qvft.training.activations import lean_activations
from qvft.training.batches.augmented_views import EpochNumbers
from qvft.training.batches.loader_workers import ended_workers, with_own_seeds
from qvft.training.batches.numbered_rows import EpochOrder, RowDataset
from qvft.training.batches.padding_sampler import Filled
from qvft.training.batches.sampler import GroupedSampler
from qvft.training.batches.streamed import Handed, StreamedBatches
from qvft.training.batches.token_budget_sampler import TokenBatchSampler
from qvft.training.objectives.alignment import LANGUAGE, AlignmentObjective
from qvft.training.objectives.alignment_losses import LossSum, combined_loss
from qvft.training.recovery.spikes import SpikeRule
from qvft.training.recovery.state import RecoveryState
from qvft.training.recovery.step_errors import some_of
from qvft.training.recovery.step_recovery import StepRecovery
from qvft.training.trainer_internals import TrainerInternals


class QFormerTrainer(TrainerInternals):
    """Trains a module whose forward returns `loss_sum` and `count`, or, as `AlignmentObjective`
    does in training mode, `losses`: several of these by name.

    Args:
        groups: parameter groups for AdamW.
        row_names: sample ids by row index.
        texts_per_image: rows of an image that are kept together in a batch.
        batches: batches under a token budget; None: batch size as in the arguments.
        stream: this process's batches of a stream, instead of `train_dataset`.
        spikes: loss spike rule and policy; None: off.
        note: logs an event at a step; None: no log.
        further arguments: as `TrainerInternals`.
    """

    def __init__(
        self,
        *args: Any,
        groups: list[dict[str, Any]],
        row_names: Callable[[Sequence[int]], list[str]],
        texts_per_image: int = 1,
        batches: TokenBatchSampler | None = None,
        stream: StreamedBatches | None = None,
        spikes: SpikeRule | None = None,
        note: Callable[[int, Mapping[str, Any]], None] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, compute_metrics=self._row_means, **kwargs)
        budget = batches.budget if batches is not None else None
        self._steps = StepRecovery(
            self, row_names=row_names, spikes=spikes, batch_tokens=budget, note=note
        )
        self._texts_per_image, self._batches, self._stream = texts_per_image, batches, stream
        self._order: Any = None
        self._loaders: list[DataLoader] = []
        self.add_callback(EpochOrder(lambda: self._order))
        self._groups = groups
        if self._sharded:
            # It is wrapped already; in evaluation mode Accelerate adds nothing but autocast.
            self.accelerator.prepare_model = partial(
                self.accelerator.prepare_model, evaluation_mode=True
            )
        self._objective = self.model if isinstance(self.model, AlignmentObjective) else None
        self._counts: dict[str, Tensor] = {}
        self._logged: dict[str, Tensor] = {}

    @property
    def recovery(self) -> RecoveryState:
        """Recovery state: losses of the last steps, number of batch halvings."""
        return self._steps.state

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As the Trainer, with lean activations where it computes under autocast."""
        lean = lean_activations(self.model, active=self.args.bf16)
        with lean, ended_workers(self._loaders):
            return super().train(*args, **kwargs)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer that TrainingArguments name, over our groups."""
        if self.optimizer is None:
            objective = cast(PreTrainedModel, self.model)  # any module does
            cls, options = self.get_optimizer_cls_and_kwargs(self.args, objective)
            self.optimizer = cls(self._groups, **options)
        return self.optimizer

    def train_order(self, dataset: Any) -> Sampler:
        """Rows image by image, padded to whole global batches where there are several processes."""
        names = [row.sample.id for row in dataset.rows]
        order: Any = GroupedSampler(names, group_size=self._texts_per_image, seed=self.args.seed)
        processes = self.args.world_size
        if processes > 1:
            order = Filled(order, multiple=self.args.train_batch_size * processes)
        return self._ordered(order, dataset)

    def _ordered(self, order: Any, dataset: RowDataset) -> Sampler:
        """The order as the dataset is asked by it; its epoch follows the training's."""
        self._order = order if dataset.views is None else EpochNumbers(order, len(dataset))
        return self._order

    def get_train_dataloader(self) -> DataLoader:
        """The Trainer's own, or one over token-budget batches or a stream.

        accelerate gives process i of n every n-th batch from the i-th on. Workers' seeds are not
        drawn from the random state of training.
        """
        if self._stream is not None:
            ahead = self.args.dataloader_num_workers * (self.args.dataloader_prefetch_factor or 2)
            batches = ahead + self.args.gradient_accumulation_steps + 2
            self._stream.keep(batches * self._stream.batch_size)
            # As for one process: the stream is already divided.
            return self._own(
                prepare_data_loader(
                    self._loader(Handed(), self._stream),
                    self.args.device,
                    num_processes=1,
                    process_index=0,
                    put_on_device=True,
                )
            )
        if self._batches is None:
            return self._own(super().get_train_dataloader())
        order = self._ordered(self._batches, self.train_dataset)
        return self._own(self.accelerator.prepare(self._loader(self.train_dataset, order)))

    def _own(self, loader: DataLoader) -> DataLoader:
        self._loaders.append(with_own_seeds(loader))
        return loader

    def _loader(self, dataset: Dataset, batches: Any) -> DataLoader:
        arguments = self.args
        return DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=self.data_collator,
            num_workers=arguments.dataloader_num_workers,
            pin_memory=arguments.dataloader_pin_memory,
            persistent_workers=arguments.dataloader_persistent_workers,
            prefetch_factor=arguments.dataloader_prefetch_factor,
        )

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """As the Trainer, see `get_train_dataloader`."""
        return self._own(super().get_eval_dataloader(eval_dataset))

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """The batches of a step and their supervised tokens, as the Trainer counts them.

        Also counts the items of the alignment objectives, for `compute_loss`.
        """
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._steps.begin(items)
        if self._stream is not None:
            for batch in batches:
                self._stream.judge(batch["row_index"])
        if self._objective is not None:
            counts = self._objective.counts(batches)
            total = torch.tensor(list(counts.values()), device=device)
            if self.args.average_tokens_across_devices:
                total = self.accelerator.reduce(total, reduction="sum")
            # Without items the sum is 0 too.
            self._counts = dict(zip(counts, total.clamp(min=1), strict=True))
        return batches, items

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """As the Trainer; a batch that does not fit into memory is split into parts."""
        return self._steps.training_step(model, inputs, super().training_step)

    def before_optimizer_step(self, model: nn.Module, norm: Tensor | float | None) -> None:
        """Raises on a non-finite loss or gradient, and skips loss spikes."""
        self._steps.check(model, norm)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Sum of the losses over the items of all processes and accumulated batches."""
        outputs = model(**{key: value for key, value in inputs.items() if key != "row_index"})
        if "losses" in outputs:
            self._note(outputs["losses"])
            language = {} if num_items_in_batch is None else {LANGUAGE: num_items_in_batch}
            counts: dict[str, Tensor | int] = {**language, **self._counts}
            assert self._objective is not None
            loss = combined_loss(outputs["losses"], self._objective.weights, counts)
        else:
            count = outputs["count"] if num_items_in_batch is None else num_items_in_batch
            loss = outputs["loss_sum"] / count
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As the Trainer, with each objective's mean since the last line beside the loss."""
        if "loss" in logs and self._logged:
            totals = self.accelerator.reduce(torch.stack([*self._logged.values()]), reduction="sum")
            for name, (total, count) in zip(self._logged, totals.tolist(), strict=True):
                if count:
                    logs[f"loss_{name}"] = total / count
            self._logged = {}
        super().log(logs, start_time)

    def _note(self, losses: Mapping[str, LossSum]) -> None:
        for name, loss in losses.items():
            found = torch.stack([loss.total.detach().float(), loss.count.float()])
            self._logged[name] = self._logged[name] + found if name in self._logged else found

    def _row_means(self, prediction: Any) -> dict[str, float]:
        """`row_means`, of losses that are all finite.

        Raises:
            NonFiniteLossError: one is not; raised alike in every process, which all have the full
                list.
        """
        bad = (~isfinite(prediction.predictions[:, 0])).nonzero()[0]
        if len(bad):
            names = [self.eval_dataset.rows[row].id for row in bad.tolist()]
            raise NonFiniteLossError(
                f"the loss of {len(bad)} evaluation rows is not finite at step "
                f"{self.state.global_step}; samples: {some_of(names)}"
            )
        return row_means(prediction)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mean loss, and per row (B, 3) loss, tokens and whether greedy decoding is right.

        Logits are not returned: with a vocabulary of 50,272 they would fill the memory.
        """
        inputs = self.on_device(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        rows = torch.stack(
            [outputs["row_loss"], outputs["row_count"].float(), outputs["exact"].float()], dim=1
        )
        return loss.detach(), rows, inputs["labels"][:, :1]


def row_means(prediction: Any) -> dict[str, float]:
    """Metrics of an evaluation during training, over all rows at once, independent of batch size
    and number of processes: loss per token in nats, exact match in percent.
    """
    loss, tokens, exact = prediction.predictions.astype("float64").T
    return {
        "token_loss": float((loss * tokens).sum() / tokens.sum()),
        "exact_match": float(100 * exact.mean()),
    }
