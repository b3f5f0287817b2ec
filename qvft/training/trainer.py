"""A thin `transformers.Trainer`: our loss, our parameter groups, our checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler
from transformers import Trainer
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from qvft.data.rows import FILLER, Row
from qvft.errors import NonFiniteLossError
from qvft.models.sharded import is_sharded
from qvft.training.alignment_losses import LossSum, combined_loss
from qvft.training.alignment_objective import LANGUAGE, AlignmentObjective
from qvft.training.filling import Filled
from qvft.training.sampler import GroupedSampler
from qvft.training.sharding import lay_out_state, whole_state


class RowDataset(Dataset):
    """Numbered rows: item i is (i, rows[i]), so that a batch can name its rows.

    `FILLER` is a row of no text; the first stands for it.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[int, Row]:
        return index, self.rows[0 if index == FILLER else index]


class QFormerTrainer(Trainer):
    """Trains a module whose forward returns `loss_sum` and `count`, or, as `AlignmentObjective`
    does in training mode, `losses`: several of these by name.

    Args:
        groups: parameter groups for AdamW.
        save_weights: writes the trained weights into a folder.
        restore_weights: reads them back from one.
        row_names: sample ids by row index; a non-finite loss names them.
        texts_per_image: rows of an image that stay together.
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
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._groups = groups
        self._save_weights = save_weights
        self._restore_weights = restore_weights
        self._row_names = row_names
        self._texts_per_image = texts_per_image
        self._sharded = is_sharded(self.model)
        if self._sharded:
            # It is wrapped already; in evaluation mode Accelerate adds nothing but autocast.
            self.accelerator.prepare_model = partial(
                self.accelerator.prepare_model, evaluation_mode=True
            )
        self._objective = self.model if isinstance(self.model, AlignmentObjective) else None
        self._counts: dict[str, Tensor] = {}
        self._logged: dict[str, Tensor] = {}

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int]:
        rows = (train_dataset or self.train_dataset).rows
        order = GroupedSampler(
            [row.sample.id for row in rows], group_size=self._texts_per_image, seed=self.args.seed
        )
        processes = self.args.world_size
        if processes == 1:
            return order
        return Filled(order, multiple=self.args.train_batch_size * processes)

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
                numbers = [number for number in row_index.tolist() if number != FILLER]
                names = ", ".join(self._row_names(numbers)[:8])
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

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Writes the trained weights; all processes call it, since each may hold a part."""
        self._save(output_dir)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        self._save_weights(Path(output_dir or self.args.output_dir))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self._sharded:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        optimizer = whole_state(self.optimizer)
        if self.args.should_save:
            torch.save(optimizer, Path(output_dir, OPTIMIZER_NAME))
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir, SCHEDULER_NAME))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self._sharded:
            lay_out_state(self.optimizer)

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
