"""The `transformers.Trainer` subclass: losses, parameter groups, steps, evaluation, logs.

Overrides of the Trainer's public methods are here, those of data loaders in `trainer_loaders.py`,
of private methods in `trainer_internals.py`; NaN, loss spikes and out-of-memory are
`recovery/step_recovery.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    PrinterCallback,
    TrainerCallback,
)

from qvft.data.rows import FILLER, Row
from qvft.progress import shown
from qvft.training.activations import lean_activations
from qvft.training.batches.loader_workers import ended_workers
from qvft.training.batches.numbered_rows import EpochOrder, RowDataset
from qvft.training.completions import FILE as COMPLETIONS
from qvft.training.metrics_log import MetricsLog, append_lines, drop_repeated, log_texts
from qvft.training.objectives.alignment_losses import LossSum, combined_loss
from qvft.training.objectives.weighted import LANGUAGE, WeightedObjective
from qvft.training.optim import keep_embeddings_in_32_bits
from qvft.training.phase_setup import PhaseSetup
from qvft.training.progress_line import ProgressLine, WritePage
from qvft.training.recovery.out_of_memory import parts_of
from qvft.training.recovery.step_recovery import StepRecovery
from qvft.training.row_metrics import OF_ROWS, row_means
from qvft.training.trainer_loaders import TrainerLoaders

NUMBERS = ("row_index", "text_index")
"""Tensors of a batch that name its rows, and of a reward batch its texts."""


class QFormerTrainer(TrainerLoaders):
    """Trains a phase.

    Its module's forward returns `loss_sum` and `count`, or, as a `WeightedObjective` in training
    mode, `losses`: several of these by name.

    Args:
        save_weights, restore_weights: as `TrainerInternals`.
        metrics_file: metrics.jsonl; completions.jsonl is beside it.
        phase: what lines of progress begin with.
        page: writes the run's page.
    """

    def __init__(
        self,
        setup: PhaseSetup,
        *,
        save_weights: Callable[[Path], None],
        restore_weights: Callable[[Path], None],
        metrics_file: Path,
        phase: str = "",
        page: WritePage | None = None,
    ) -> None:
        log = MetricsLog(metrics_file, setup.name)
        callbacks: list[TrainerCallback] = [log, *setup.callbacks]
        if setup.early_stopping is not None:
            callbacks.append(EarlyStoppingCallback(setup.early_stopping))
        self.setup, self._texts = setup, 0
        self._completions_file = metrics_file.with_name(COMPLETIONS)
        rows: Any = RowDataset(setup.train_rows, setup.views, seed=setup.arguments.seed)
        if setup.stream is not None:
            rows = setup.stream.rows
        super().__init__(
            model=setup.module,
            args=setup.arguments,
            data_collator=setup.collator,
            train_dataset=rows,
            eval_dataset=RowDataset(setup.eval_rows) if setup.eval_rows else None,
            callbacks=callbacks,
            compute_metrics=self.row_means,
            save_weights=save_weights,
            restore_weights=restore_weights,
        )
        self.recovery = StepRecovery(
            self,
            row_names=lambda indices: [rows[index][1].id for index in indices],
            spikes=setup.spikes,
            batch_tokens=setup.batches.budget if setup.batches is not None else None,
            note=log.note,
        )
        self._order: Any = None
        self._loaders: list[DataLoader] = []
        self.add_callback(EpochOrder(lambda: self._order))
        self.remove_callback(PrinterCallback)
        self.progress = ProgressLine(phase, lambda: self._texts, page, self.begin)
        self.add_callback(self.progress)
        if self._sharded:
            # It is wrapped already; in evaluation mode Accelerate adds nothing but autocast.
            self.accelerator.prepare_model = partial(
                self.accelerator.prepare_model, evaluation_mode=True
            )
        self._objective = self.model if isinstance(self.model, WeightedObjective) else None
        self._counts: dict[str, Tensor] = {}
        self._logged: dict[str, Tensor] = {}

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As the Trainer, with lean activations where it computes under autocast."""
        lean = lean_activations(self.model, active=self.args.bf16)
        with lean, ended_workers(self._loaders), shown(self.progress.line):
            return super().train(*args, **kwargs)

    def begin(self) -> None:
        """Records the examples' texts before the first step; a resumed run has them."""
        if self.state.is_world_process_zero:
            drop_repeated(self._completions_file, self.setup.name, self.state.global_step)
        completions = self.setup.completions
        examples = completions.examples if completions is not None else ()
        if examples and self.state.global_step == 0:
            self.model.eval()  # until the first step
            self.generate(scored=False)

    def generate(self, *, scored: bool = True) -> dict[str, float]:
        """Scores of generated texts; also records those of the examples."""
        if self.setup.completions is None:
            return {}
        with self.compute_loss_context_manager():
            scores, examples = self.setup.completions(scored=scored)
        if self.state.is_world_process_zero and examples:
            where = {"phase": self.setup.name, "step": self.state.global_step}
            append_lines(self._completions_file, [{**where, **line} for line in examples])
            log_texts(self.callback_handler.callbacks, examples, step=self.state.global_step)
        return scores

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer that TrainingArguments name, over our groups."""
        if self.optimizer is None:
            objective = cast(PreTrainedModel, self.model)  # any module does
            cls, options = self.get_optimizer_cls_and_kwargs(self.args, objective)
            self.optimizer = cls(self.setup.groups, **options)
            if options.get("optim_bits") == 8:
                keep_embeddings_in_32_bits(objective)
        return self.optimizer

    def num_examples(self, dataloader: DataLoader) -> int:
        """Texts of an epoch, for the Trainer's speed."""
        if self.setup.mixture is not None and dataloader.dataset is self.train_dataset:
            return len(self.setup.mixture)
        return super().num_examples(dataloader)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """The batches of a step and their supervised tokens, as the Trainer counts them.

        Also counts the items of each loss of a `WeightedObjective`, for `compute_loss`.
        """
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._texts += sum(int((one["row_index"] != FILLER).sum()) for one in batches)
        batches = self.step_batches(batches)
        self.recovery.begin(items)
        if self.setup.stream is not None:
            for batch in batches:
                self.setup.stream.check_images(batch["row_index"])
        if self._objective is not None:
            counts = self._objective.counts(batches)
            total = torch.tensor(list(counts.values()), device=device)
            if self.args.average_tokens_across_devices:
                total = self.accelerator.reduce(total, reduction="sum")
            self._counts = dict(zip(counts, total.clamp(min=1), strict=True))  # without items 0 / 1
        return batches, items

    def step_batches(self, batches: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """The batches that a step learns from."""
        return batches

    def rows_of(self, batch: Mapping[str, Tensor]) -> list[tuple[int, Row]]:
        """The numbered rows of a batch, in the views of this epoch."""
        first = int(self.state.epoch or 0) * len(self.train_dataset)
        numbers = batch["row_index"].tolist()
        return [
            self.train_dataset[FILLER if number == FILLER else first + number] for number in numbers
        ]

    def parts_of(
        self, batch: dict[str, Tensor], halvings: int
    ) -> Iterator[tuple[dict[str, Tensor], bool]]:
        """The batch in 2**halvings parts, collated one by one, and whether each is the last."""
        collate = cast(Callable[[Sequence[Any]], dict[str, Tensor]], self.data_collator)
        rows = self.rows_of(batch)
        parts = parts_of([row.sample.id for _, row in rows], halvings=halvings)
        for number, part in enumerate(parts, start=1):
            yield collate([rows[place] for place in part]), number == len(parts)

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """As the Trainer; a batch that does not fit into memory is split into parts."""
        return self.recovery.training_step(model, inputs, super().training_step)

    def before_optimizer_step(self, model: nn.Module, norm: Tensor | float | None) -> None:
        """Raises on a non-finite loss or gradient, and skips loss spikes."""
        self.recovery.check(model, norm)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Sum of the losses over the items of all processes and accumulated batches."""
        outputs = model(**{key: value for key, value in inputs.items() if key not in NUMBERS})
        if "losses" in outputs:
            named = {f"loss_{name}": one for name, one in outputs["losses"].items()}
            self.note_means({**named, **outputs.get("metrics", {})})
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

    def note_means(self, sums: Mapping[str, LossSum]) -> None:
        """Adds sums to those whose means the next log line has."""
        for name, one in sums.items():
            found = torch.stack([one.total.detach().float(), one.count.float()])
            self._logged[name] = self._logged[name] + found if name in self._logged else found

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As the Trainer, with the mean of each loss and metric since the last line."""
        if "loss" in logs and self._logged:
            totals = self.accelerator.reduce(torch.stack([*self._logged.values()]), reduction="sum")
            for name, (total, count) in zip(self._logged, totals.tolist(), strict=True):
                if count:
                    logs[name] = total / count
            self._logged = {}
        super().log(logs, start_time)

    def row_means(self, prediction: Any) -> dict[str, float]:
        """Metrics of an evaluation during training, see `row_metrics.row_means`."""
        rows, step = self.eval_dataset.rows, self.state.global_step
        return {**row_means(prediction.predictions, rows, step=step), **self.generate()}

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mean loss, and per row (B, 3) loss, tokens and whether greedy decoding is right; per pair
        (B, 4), as `PreferenceObjective`.

        Logits are not returned: with a vocabulary of 50,272 they would fill the memory.
        """
        inputs = self.on_device(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        columns = [outputs[name] for name in OF_ROWS if name in outputs]
        rows = torch.stack([column.float() for column in columns], dim=1)
        return loss.detach(), rows, inputs["labels"][: len(rows), :1]
