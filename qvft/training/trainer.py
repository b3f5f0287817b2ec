"""A thin `transformers.Trainer`: our loss, our parameter groups, our checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from numpy import isfinite
from torch import Tensor, nn
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from qvft.disk import saving
from qvft.errors import NonFiniteLossError
from qvft.models.sharded_weights import is_sharded
from qvft.training.activations import lean_activations
from qvft.training.batches.loading_trainer import LoadingTrainer
from qvft.training.checkpoints import STATE, NewCheckpoint
from qvft.training.distributed.fsdp import lay_out_state, whole_state
from qvft.training.objectives.alignment import LANGUAGE, AlignmentObjective
from qvft.training.objectives.alignment_losses import LossSum, combined_loss
from qvft.training.plain_states import require_plain_states
from qvft.training.recovery.step_errors import some_of


class QFormerTrainer(LoadingTrainer):
    """Trains a module whose forward returns `loss_sum` and `count`, or, as `AlignmentObjective`
    does in training mode, `losses`: several of these by name.

    Args:
        groups: parameter groups for AdamW.
        save_weights: writes the trained weights into a folder.
        restore_weights: reads them back from one.
        further arguments: as `LoadingTrainer`.
    """

    def __init__(
        self,
        *args: Any,
        groups: list[dict[str, Any]],
        save_weights: Callable[[Path], None],
        restore_weights: Callable[[Path], None],
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, compute_metrics=self._row_means, **kwargs)
        self._groups = groups
        self._save_weights = save_weights
        self._restore_weights = restore_weights
        self._sharded = is_sharded(self.model)
        if self._sharded:
            # It is wrapped already; in evaluation mode Accelerate adds nothing but autocast.
            self.accelerator.prepare_model = partial(
                self.accelerator.prepare_model, evaluation_mode=True
            )
        self._objective = self.model if isinstance(self.model, AlignmentObjective) else None
        self._counts: dict[str, Tensor] = {}
        self._logged: dict[str, Tensor] = {}
        self._staging: Path | None = None

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As the Trainer, with lean activations where it computes under autocast."""
        with lean_activations(self.model, active=self.args.bf16):
            return super().train(*args, **kwargs)

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
        """Sum of the losses over the items of all processes and accumulated batches."""
        outputs = model(**{key: value for key, value in inputs.items() if key != "row_index"})
        if "losses" in outputs:
            self._note(outputs["losses"])
            counts = {LANGUAGE: num_items_in_batch, **self._counts}
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
            NonFiniteLossError: one is not; every process has all of them and says so alike.
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

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging) if self._staging else super()._get_output_dir(trial)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """As the Trainer, in a folder of its own that takes the checkpoint's name when it is whole.

        Raises:
            FailedError: it could not be written; those before it are untouched.
        """
        new = NewCheckpoint(Path(self.args.output_dir), self.state.global_step)
        best = self.state.best_model_checkpoint
        with saving(new.path, kept="those before it are whole; go on with train.resume=auto"):
            if self.args.should_save:
                new.begin()
            self.accelerator.wait_for_everyone()
            self._staging = new.staging
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self._staging = None
            if self.state.best_model_checkpoint != best:
                # One that a signal asked for is no candidate: the run would end otherwise without.
                self.state.best_model_checkpoint = str(new.path) if self._scheduled() else best
            self.accelerator.wait_for_everyone()  # each has written its random state
            if self.args.should_save:
                self.state.save_to_json(str(new.staging / new.path.name / STATE))
                new.finish(keep=self.args.save_total_limit, best=self.state.best_model_checkpoint)
            self.accelerator.wait_for_everyone()

    def _scheduled(self) -> bool:
        """Whether the recipe, not a signal, asks for a checkpoint at this step."""
        step = self.state.global_step
        return step % self.state.save_steps == 0 or step >= self.state.max_steps

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
        require_plain_states(Path(resume_from_checkpoint))
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
