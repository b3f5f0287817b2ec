"""Steps of trl's own DPOTrainer on the policy of `qvft.interop.trl`, for benchmarks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from qvft.benchmark.machine import idle_optimizer
from qvft.data.rows import Row
from qvft.extras import require_package
from qvft.recipe.phases import PhasePlan
from qvft.recipe.schema import Recipe


class TrlSteps:
    """Steps of a DPOTrainer with the recipe's weights and losses; its reference is a model.

    `folder` is for what the trainer would write.
    """

    def __init__(self, recipe: Recipe, plan: PhasePlan, *, bf16: bool, folder: str) -> None:
        require_package("trl", wanted_by="qvft bench --only preference", install="qvft[trl]")
        from qvft.interop.trl import policy

        sections = {
            "trainable": plan.trainable.model_dump(),
            "data.prompt": recipe.data.prompt.model_dump(),
            "data.text": recipe.data.text,
            "data.max_text_tokens": recipe.data.max_text_tokens,
            "data.max_image_pixels": recipe.data.max_image_pixels,
            "model.dtype": recipe.model.dtype,
            "run.seed": recipe.run.seed,
        }
        self.policy = policy(recipe.train.from_ or recipe.model.id, **sections)
        self.pixels = recipe.data.max_image_pixels
        self.model: nn.Module = self.policy.model
        self.trainer = self._trainer(recipe, plan, bf16=bf16, folder=folder)
        self.place = self.policy.model.device
        self.optimizer = idle_optimizer(self.model)

    def _trainer(self, recipe: Recipe, plan: PhasePlan, *, bf16: bool, folder: str) -> Any:
        import trl
        from datasets import Dataset
        from PIL import Image

        unused = {"image": Image.new("RGB", (8, 8)), **_texts("", "a", "b")}
        with warnings.catch_warnings():  # trl uses old names of transformers' fields
            warnings.simplefilter("ignore", FutureWarning)
            config = trl.DPOConfig(
                output_dir=folder,
                per_device_train_batch_size=plan.train.per_device_train_batch_size,
                gradient_checkpointing=plan.train.gradient_checkpointing,
                bf16=bf16,
                use_cpu=not torch.cuda.is_available(),
                max_length=None,
                report_to="none",
                **recipe.preference.model_dump(),
            )
            return trl.DPOTrainer(
                model=self.policy.model,
                ref_model=self.policy.reference,
                processing_class=self.policy.processor,
                args=config,
                train_dataset=Dataset.from_list([unused]),
            )

    def laid_out(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """A batch of trl's collator on the device."""
        from qvft.data.images.decoding import decode

        examples = [
            {
                "image": decode(row.sample.image, max_pixels=self.pixels),
                **_texts(row.question or "", row.target, row.rejected or ""),
            }
            for row in rows
        ]
        batch = self.trainer.data_collator(examples)
        return {name: one.to(self.place) for name, one in batch.items() if torch.is_tensor(one)}

    def loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Loss of a batch, as the trainer computes it in a step."""
        self.model.train()
        with self.trainer.compute_loss_context_manager():
            return self.trainer.compute_loss(self.trainer.model, dict(batch))

    def step(self, batch: Mapping[str, Tensor]) -> None:
        """Forward, backward and optimizer step."""
        self.loss(batch).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def _texts(question: str, chosen: str, rejected: str) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": question}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }
