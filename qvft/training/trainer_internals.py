"""Every private method of `transformers.Trainer` that qvft overrides or calls, in one file.

A release of transformers may change them without notice: `PRIVATE` lists their signatures, and
tests/training/test_trainer_internals.py compares these with the installed release.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler
from transformers import Trainer
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from qvft.disk import saving
from qvft.models.sharded_weights import is_sharded
from qvft.training.batches.numbered_rows import RowDataset
from qvft.training.checkpoints import STATE, NewCheckpoint, require_plain_states
from qvft.training.distributed.fsdp import lay_out_state, whole_state

PRIVATE: Mapping[str, tuple[str, ...]] = {
    "_get_train_sampler": ("self", "train_dataset"),
    "_get_grad_norm": ("self", "model", "grad_norm"),
    "_get_output_dir": ("self", "trial"),
    "_save_checkpoint": ("self", "model", "trial"),
    "_save": ("self", "output_dir", "state_dict"),
    "_save_optimizer_and_scheduler": ("self", "output_dir"),
    "_load_optimizer_and_scheduler": ("self", "checkpoint"),
    "_load_from_checkpoint": ("self", "resume_from_checkpoint", "model"),
    "_load_best_model": ("self",),
    "_prepare_inputs": ("self", "inputs"),
}
"""Parameter names by method, as in transformers 5.23 and 5.24."""


class TrainerInternals(Trainer):
    """A Trainer with its own sampler, a hook on the gradient norm, and atomic checkpoints.

    A checkpoint is written into a staging folder and renamed when it is complete. It holds the
    trained weights as an adapter folder in place of `model.safetensors`.
    """

    # Of what Trainer declares, what qvft gives it.
    model: nn.Module
    train_dataset: RowDataset
    eval_dataset: RowDataset

    def __init__(
        self,
        *args: Any,
        save_weights: Callable[[Path], None],
        restore_weights: Callable[[Path], None],
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._save_weights, self._restore_weights = save_weights, restore_weights
        self._sharded = is_sharded(self.model)
        self._staging: Path | None = None

    def train_order(self, dataset: Any) -> Sampler:
        """The order in which an epoch visits the rows of `dataset`."""
        raise NotImplementedError

    def before_optimizer_step(self, model: nn.Module, norm: Tensor | float | None) -> None:
        """Called with the gradient norm, before the weights change."""
        raise NotImplementedError

    def parts_of(
        self, batch: dict[str, Tensor], halvings: int
    ) -> Iterator[tuple[dict[str, Tensor], bool]]:
        """The parts of a batch that does not fit into memory, and whether each is the last."""
        raise NotImplementedError

    def on_device(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """A batch on this process's device."""
        return self._prepare_inputs(inputs)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler:
        return self.train_order(train_dataset or self.train_dataset)

    def _get_grad_norm(
        self, model: nn.Module, grad_norm: Tensor | float | None = None
    ) -> Tensor | float | None:
        """As the Trainer, which asks for the norm last before the optimizer steps."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self.before_optimizer_step(model, norm)
        return norm

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging) if self._staging else super()._get_output_dir(trial)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """As the Trainer, in a staging folder that is renamed when the checkpoint is complete.

        Raises:
            FailedError: it could not be written; earlier checkpoints are untouched.
        """
        new = NewCheckpoint(self._output_dir(), self.state.global_step)
        best = self.state.best_model_checkpoint
        with saving(new.path, kept="earlier ones are complete; resume with train.resume=auto"):
            if self.args.should_save:
                new.begin()
            self.accelerator.wait_for_everyone()
            self._staging = new.staging
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self._staging = None
            if self.state.best_model_checkpoint != best:
                # A checkpoint that a signal asked for is no candidate for the best one: the run
                # would otherwise end differently from one that was never stopped.
                self.state.best_model_checkpoint = str(new.path) if self._scheduled() else best
            self.accelerator.wait_for_everyone()  # each process has written its random state
            if self.args.should_save:
                self.state.save_to_json(str(new.staging / new.path.name / STATE))
                new.finish(keep=self.args.save_total_limit, best=self.state.best_model_checkpoint)
            self.accelerator.wait_for_everyone()

    def _scheduled(self) -> bool:
        """Whether the recipe, not a signal, asks for a checkpoint at this step."""
        step = self.state.global_step
        return step % self.state.save_steps == 0 or step >= self.state.max_steps

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Writes the trained weights; every process calls it, since each may hold a shard."""
        self._save(output_dir)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        self._save_weights(Path(output_dir) if output_dir else self._output_dir())

    def _output_dir(self) -> Path:
        return Path(str(self.args.output_dir))  # TrainingArguments has a default

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self._sharded:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        assert self.optimizer is not None and self.lr_scheduler is not None, "training has begun"
        optimizer = whole_state(self.optimizer)
        if self.args.should_save:
            torch.save(optimizer, Path(output_dir, OPTIMIZER_NAME))
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir, SCHEDULER_NAME))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self._sharded:
            assert self.optimizer is not None, "training has begun"
            lay_out_state(self.optimizer)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        require_plain_states(Path(resume_from_checkpoint))
        self._restore_weights(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        assert self.state.best_model_checkpoint is not None, "asked for only where there is one"
        self._restore_weights(Path(self.state.best_model_checkpoint))
