"""Data loaders of the Trainer subclass: order of rows, token-budget batches, streams."""

from __future__ import annotations

from typing import Any

from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader, Dataset, Sampler

from qvft.training.batches.loader_workers import with_own_seeds
from qvft.training.batches.numbered_rows import EpochNumbers, RowDataset
from qvft.training.batches.sampler import GroupedSampler, PaddedSampler
from qvft.training.batches.streamed import GivenRows
from qvft.training.phase_setup import PhaseSetup
from qvft.training.trainer_internals import TrainerInternals


class TrainerLoaders(TrainerInternals):
    """The Trainer's loaders over rows, token-budget batches or a stream."""

    # Set by `QFormerTrainer`.
    setup: PhaseSetup
    _order: Any
    _loaders: list[DataLoader]

    def train_order(self, dataset: Any) -> Sampler:
        """Rows image by image, padded to whole global batches where there are several processes."""
        order: Any = self.grouped(dataset)
        processes = self.args.world_size
        if processes > 1:
            order = PaddedSampler(order, multiple=self.args.train_batch_size * processes)
        return self.by_epoch(order, dataset)

    def grouped(self, dataset: Any) -> GroupedSampler:
        """The rows of an epoch, shuffled, image by image."""
        return GroupedSampler(
            [row.sample.id for row in dataset.rows],
            group_size=self.setup.texts_per_image,
            seed=self.args.seed,
            mixture=self.setup.mixture,
        )

    def by_epoch(self, order: Any, dataset: RowDataset) -> Sampler:
        """The order, whose epoch follows the training's, with epochs in its numbers if rows differ
        between epochs.
        """
        self._order = EpochNumbers(order, len(dataset)) if dataset.varies else order
        return self._order

    def get_train_dataloader(self) -> DataLoader:
        """The Trainer's own, or one over token-budget batches or a stream.

        accelerate gives process i of n every n-th batch from the i-th on. Workers' seeds are not
        drawn from the random state of training.
        """
        stream = self.setup.stream
        if stream is not None:
            ahead = self.args.dataloader_num_workers * (self.args.dataloader_prefetch_factor or 2)
            batches = ahead + self.args.gradient_accumulation_steps + 2
            stream.keep(batches * stream.batch_size)
            # As for one process: the stream is already divided.
            return self._own(
                prepare_data_loader(
                    self._loader(GivenRows(), stream),
                    self.args.device,
                    num_processes=1,
                    process_index=0,
                    put_on_device=True,
                )
            )
        if self.setup.batches is None:
            return self._own(super().get_train_dataloader())
        order = self.by_epoch(self.setup.batches, self.train_dataset)
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
