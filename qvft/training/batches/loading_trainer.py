"""A `transformers.Trainer` whose batches are ordered, filled up and read as a recipe says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from qvft.training.batches.loader_workers import with_own_seeds
from qvft.training.batches.numbered_rows import EpochOrder
from qvft.training.batches.padding_sampler import Filled
from qvft.training.batches.sampler import GroupedSampler
from qvft.training.batches.streamed import Handed, StreamedBatches
from qvft.training.batches.token_budget_sampler import TokenBatchSampler
from qvft.training.batches.views import EpochNumbers
from qvft.training.recovery.recovering_trainer import RecoveringTrainer


class LoadingTrainer(RecoveringTrainer):
    """Orders rows image by image, or takes batches by tokens, or those of a stream.

    Args:
        texts_per_image: rows of an image that stay together.
        batches: batches by tokens; None: as many rows as the arguments say.
        stream: this process's batches of a stream, in place of those of `train_dataset`.
        further arguments: as `RecoveringTrainer`.
    """

    def __init__(
        self,
        *args: Any,
        texts_per_image: int = 1,
        batches: TokenBatchSampler | None = None,
        stream: StreamedBatches | None = None,
        **kwargs: Any,
    ) -> None:
        budget = batches.budget if batches is not None else None
        super().__init__(*args, batch_tokens=budget, **kwargs)
        self._texts_per_image, self._batches = texts_per_image, batches
        self._stream = stream
        self._order: Any = None
        self.add_callback(EpochOrder(lambda: self._order))

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler:
        dataset = train_dataset or self.train_dataset
        names = [row.sample.id for row in dataset.rows]
        order: Any = GroupedSampler(names, group_size=self._texts_per_image, seed=self.args.seed)
        processes = self.args.world_size
        if processes > 1:
            order = Filled(order, multiple=self.args.train_batch_size * processes)
        return self._ordered(order, dataset)

    def _ordered(self, order: Any, dataset: Dataset) -> Sampler:
        """The order as the dataset is asked by it; its epoch follows the training's."""
        self._order = order if dataset.views is None else EpochNumbers(order, len(dataset))
        return self._order

    def get_train_dataloader(self) -> DataLoader:
        """The Trainer's own, or one over batches by tokens, which it has no way to be given.

        accelerate gives process i of n every n-th batch from the i-th on. Workers' seeds are not
        drawn from the random state of training.
        """
        if self._stream is not None:
            ahead = self.args.dataloader_num_workers * (self.args.dataloader_prefetch_factor or 2)
            batches = ahead + self.args.gradient_accumulation_steps + 2
            self._stream.keep(batches * self._stream.batch_size)
            # As of one process: it is divided already.
            return with_own_seeds(
                prepare_data_loader(
                    self._loader(Handed(), self._stream),
                    self.args.device,
                    num_processes=1,
                    process_index=0,
                    put_on_device=True,
                )
            )
        if self._batches is None:
            return with_own_seeds(super().get_train_dataloader())
        order = self._ordered(self._batches, self.train_dataset)
        return with_own_seeds(self.accelerator.prepare(self._loader(self.train_dataset, order)))

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
        return with_own_seeds(super().get_eval_dataloader(eval_dataset))

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """As the Trainer's; the images of a stream are judged as they come."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self._stream is not None:
            for batch in batches:
                self._stream.judge(batch["row_index"])
        return batches, items
