"""A thin `transformers.Trainer`: our loss, our parameter groups, our checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import Trainer, TrainerCallback

from qvft.data.rows import Row
from qvft.errors import NonFiniteLossError
from qvft.training.alignment_losses import LossSum, combined_loss
from qvft.training.alignment_objective import LANGUAGE, AlignmentObjective
from qvft.training.sampler import GroupedSampler
from qvft.training.token_batches import TokenBatchSampler
from qvft.training.views import EpochNumbers, ViewDraw


class RowDataset(Dataset):
    """Numbered rows: item i is (i, rows[i]), so that a batch can name its rows.

    Args:
        rows: of a split.
        views: draws the view of a row's image; item e * rows + i is row i in epoch e then.
    """

    def __init__(self, rows: Sequence[Row], views: ViewDraw | None = None) -> None:
        self.rows, self.views = rows, views

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> tuple[int, Row]:
        epoch, index = divmod(number, len(self.rows))
        row = self.rows[index]
        if self.views is None:
            return index, row
        return index, replace(row, view=self.views(epoch, row.sample.id))


class EpochOrder(TrainerCallback):
    """Tells what orders the rows which epoch begins.

    transformers and accelerate reach a sampler through some of their wrappers only: not in one of
    several processes that goes on in the middle of an epoch.

    Args:
        order: finds it; None where nothing is ordered yet.
    """

    def __init__(
        self, order: Callable[[], GroupedSampler | TokenBatchSampler | EpochNumbers | None]
    ) -> None:
        self.order = order

    def on_epoch_begin(self, args, state, control, **kwargs) -> None:  # noqa: ANN001, ANN003
        """`state.epoch` is what has been trained so far, in epochs."""
        order = self.order()
        if order is not None:
            order.set_epoch(int(state.epoch))


class QFormerTrainer(Trainer):
    """Trains a module whose forward returns `loss_sum` and `count`, or, as `AlignmentObjective`
    does in training mode, `losses`: several of these by name.

    Args:
        groups: parameter groups for AdamW.
        save_weights: writes the trained weights into a folder.
        restore_weights: reads them back from one.
        row_names: sample ids by row index; a non-finite loss names them.
        texts_per_image: rows of an image that stay together.
        batches: batches by tokens; None: as many rows as the arguments say.
        further arguments: as `transformers.Trainer`.
    """

    def __init__(
        self,
        *args: Any,
        groups: list[dict[str, Any]],
        save_weights: Callable[[Path], None],
        restore_weights: Callable[[Path], None],
        row_names: Callable[[Sequence[int]], list[str]],
        texts_per_image: int = 1,
        batches: TokenBatchSampler | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._groups = groups
        self._save_weights = save_weights
        self._restore_weights = restore_weights
        self._row_names = row_names
        self._texts_per_image, self._batches = texts_per_image, batches
        self._order: GroupedSampler | TokenBatchSampler | EpochNumbers | None = None
        self.add_callback(EpochOrder(lambda: self._order))
        self._objective = self.model if isinstance(self.model, AlignmentObjective) else None
        self._counts: dict[str, Tensor] = {}
        self._logged: dict[str, Tensor] = {}

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler:
        dataset = train_dataset or self.train_dataset
        names = [row.sample.id for row in dataset.rows]
        grouped = GroupedSampler(names, group_size=self._texts_per_image, seed=self.args.seed)
        return self._ordered(grouped, dataset)

    def _ordered(self, order: GroupedSampler | TokenBatchSampler, dataset: Dataset) -> Sampler:
        """The order as the dataset is asked by it; its epoch follows the training's."""
        self._order = order
        if dataset.views is not None:
            self._order = EpochNumbers(order, len(dataset))
        return self._order

    def get_train_dataloader(self) -> DataLoader:
        """The Trainer's own, or one over batches by tokens, which it has no way to be given.

        accelerate gives process i of n every n-th batch from the i-th on.
        """
        if self._batches is None:
            return super().get_train_dataloader()
        arguments = self.args
        loader = DataLoader(
            self.train_dataset,
            batch_sampler=self._ordered(self._batches, self.train_dataset),
            collate_fn=self.data_collator,
            num_workers=arguments.dataloader_num_workers,
            pin_memory=arguments.dataloader_pin_memory,
            persistent_workers=arguments.dataloader_persistent_workers,
            prefetch_factor=arguments.dataloader_prefetch_factor,
        )
        return self.accelerator.prepare(loader)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer that TrainingArguments name, over our groups."""
        if self.optimizer is None:
            cls, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            self.optimizer = cls(self._groups, **options)
        return self.optimizer

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """The batches of a step and their supervised tokens, as the Trainer counts them.

        Beside it counts, for `compute_loss`, the items of the alignment objectives.
        """
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self._objective is not None:
            counts = self._objective.counts(batches)
            total = torch.tensor(list(counts.values()), device=device)
            if self.args.average_tokens_across_devices:
                total = self.accelerator.reduce(total, reduction="sum")
            # Where nothing is counted the sum is 0 too.
            self._counts = dict(zip(counts, total.clamp(min=1), strict=True))
        return batches, items

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Sum of the losses over the items of all processes and accumulated batches.

        Raises:
            NonFiniteLossError: a sum is NaN or infinite; names the step and the samples.
        """
        inputs = dict(inputs)
        row_index = inputs.pop("row_index")
        outputs = model(**inputs)
        if "losses" in outputs:
            self._require_finite({n: x.total for n, x in outputs["losses"].items()}, row_index)
            self._note(outputs["losses"])
            counts = {LANGUAGE: num_items_in_batch, **self._counts}
            assert self._objective is not None
            loss = combined_loss(outputs["losses"], self._objective.weights, counts)
        else:
            self._require_finite({"": outputs["loss_sum"]}, row_index)
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

    def _require_finite(self, totals: Mapping[str, Tensor], row_index: Tensor) -> None:
        for name, total in totals.items():
            if not torch.isfinite(total):
                names = ", ".join(self._row_names(row_index.tolist())[:8])
                raise NonFiniteLossError(
                    f"the {name + ' ' if name else ''}loss is {float(total.detach())} at step "
                    f"{self.state.global_step + 1}; samples: {names}"
                )

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mean loss, and by row (B, 3) its loss, its tokens and whether greedy decoding is right.

        No logits leave this function: 50,272 wide, they would fill the memory.
        """
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        rows = torch.stack(
            [outputs["row_loss"], outputs["row_count"].float(), outputs["exact"].float()], dim=1
        )
        return loss.detach(), rows, inputs["labels"][:, :1]

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if self.args.should_save:
            self._save_weights(Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        self._restore_weights(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        self._restore_weights(Path(self.state.best_model_checkpoint))


def row_means(prediction: Any) -> dict[str, float]:
    """Metrics of an evaluation during training, over all rows at once, so that neither batch size
    nor number of processes matters: loss a token in nats, exact match in percent."""
    loss, tokens, exact = prediction.predictions.astype("float64").T
    return {
        "token_loss": float((loss * tokens).sum() / tokens.sum()),
        "exact_match": float(100 * exact.mean()),
    }
