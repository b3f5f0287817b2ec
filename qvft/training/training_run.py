"""`TrainingRun`: model, data and phases of a run, its steps, warnings, objectives and weights."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback

from qvft.adapters.checkpoint import (
    Alignment,
    restore_alignment,
    restore_checkpoint,
    restore_objectives,
    save_checkpoint,
)
from qvft.adapters.freeze import ComponentCount, count_components
from qvft.adapters.lora import lora_targets
from qvft.data.rows import Row
from qvft.data.token_stats import row_tokens
from qvft.inference.reward_function import RewardFunction, TextScores
from qvft.log import get_logger
from qvft.recipe.phases import PhasePlan
from qvft.recipe.schema import Recipe
from qvft.setup.data import Split
from qvft.setup.feature_cache import unload_vision, with_features
from qvft.setup.mixing import source_shares
from qvft.setup.model import Loaded, device, set_trainable
from qvft.training.batches.mixture import Mixture, mixture_of
from qvft.training.batches.token_budget_sampler import TokenBatchSampler
from qvft.training.memory_estimate import vision_flops
from qvft.training.objectives.build import (
    Collate,
    collator_of,
    language_of,
    packer_of,
    preference_of,
)
from qvft.training.objectives.custom import CustomLoss
from qvft.training.phase_rows import (
    PREFERENCE,
    default_limit,
    is_reward,
    phase_rows,
    watched_rows,
)
from qvft.training.rewards.build import reward_objective

logger = get_logger("qvft.train")


@dataclass
class TrainingRun:
    """Everything needed to train a recipe.

    Attributes:
        loaded: the model, with LoRA layers if any phase trains them.
        train, eval: the data, of a stream its first samples; `eval` is None without evaluation
            data.
        branch: alignment heads, if the recipe has alignment objectives.
        sharded: whether FSDP shards the weights.
        custom: losses of the recipe's custom objectives, by name.
        bridge: names of the non-LoRA weights trained by any phase so far, or by the run that this
            one started from.
        batches, mixtures: token-budget batches, and mixture of sources, per phase, cached.
        fsdp_module: the FSDP-sharded objective, once sharded; the first phase's serves all phases.
        callbacks: the caller's, for the trainer of each phase.
        rewards: functions of the reward phases, by name.
        scores: of generated texts, by the report's names.
    """

    recipe: Recipe
    loaded: Loaded
    train: Split
    eval: Split | None
    plans: list[PhasePlan]
    provenance: Mapping[str, Any]
    branch: Alignment | None = None
    sharded: bool = False
    custom: dict[str, CustomLoss] = field(default_factory=dict)
    bridge: set[str] = field(default_factory=set)
    batches: dict[str, TokenBatchSampler | None] = field(default_factory=dict)
    mixtures: dict[str, Mixture | None] = field(default_factory=dict)
    fsdp_module: nn.Module | None = None
    callbacks: Sequence[TrainerCallback] = ()
    rewards: Mapping[str, RewardFunction] = field(default_factory=dict)
    scores: TextScores | None = None

    def counts(self, plan: PhasePlan) -> list[ComponentCount]:
        """Component table of a phase; freezes and unfreezes the model accordingly."""
        set_trainable(self.loaded, plan.trainable)
        return count_components(self.loaded.model, self.loaded.base.family)

    def cache_features(self) -> None:
        """Fills the feature cache and unloads the ViT, if no phase needs it."""
        if self.recipe.data.features == "off":
            return
        if any(plan.trainable.vision != "frozen" for plan in self.plans):
            logger.info(
                "features are not cached: the ViT is trained, so it runs forward and backward in "
                "every step, about %.2g TFLOP per image",
                vision_flops(self.loaded.model) / 1e12,
            )
            return
        if self.train.stream is not None:
            logger.info("a stream's features are not cached: the ViT runs in every step")
            return
        rows = [row for plan in self.plans for row in self.watched(plan)]
        watched = [*{row.sample.id: row.sample for row in rows}.values()]
        set_trainable(self.loaded, self.plans[0].trainable)
        if self.sharded:  # stays in CPU memory until it is sharded
            self.loaded.model.vision_model.to(device())
        self.loaded = with_features(self.loaded, self.recipe, watched, augmented=self.train.samples)
        if self.loaded.collator.features is not None and not self._keeps_vision():
            unload_vision(self.loaded.model)

    def _keeps_vision(self) -> bool:
        """Whether the adapter has weights of the ViT, of the run it started from."""
        handle, part = self.loaded.handle, self.loaded.base.family.part
        layers = () if handle is None else lora_targets(handle)
        return any(part(name) == "vision" for name in (*self.bridge, *layers))

    def needed_bytes(self) -> int:
        """Disk space needed for the kept checkpoints (weights and AdamW's state) and the adapter.

        Trained weights are float32; a checkpoint holds three values per weight.
        """
        largest = max(sum(row.trainable for row in self.counts(plan)) for plan in self.plans)
        modules = [*self.custom.values(), *([self.branch.heads] if self.branch else [])]
        largest += sum(weight.numel() for one in modules for weight in one.parameters())
        kept = max(plan.train.save_total_limit for plan in self.plans)
        return 4 * largest * (3 * (kept + 1) + 1)

    def rows(self, plan: PhasePlan, split: Split | None, *, training: bool) -> list[Row]:
        """Rows of a split that a phase uses."""
        return phase_rows(plan, split, training=training)

    def watched(self, plan: PhasePlan) -> list[Row]:
        """Rows of a phase's evaluations, at most `train.eval_limit`."""
        rows, train = self.rows(plan, self.eval, training=False), plan.train
        if not rows or train.eval_steps is None:
            return []
        limit = train.eval_limit
        if limit is None:
            limit = default_limit(train.eval_steps * self.texts_per_step(plan))
        return watched_rows(rows, limit, self.recipe.run.seed)

    def texts_per_step(self, plan: PhasePlan) -> float:
        """Texts that all processes train in an optimizer step."""
        train, batches = plan.train, self.token_batches(plan)
        per_batch: float = train.per_device_train_batch_size
        if batches is not None:
            per_batch = len(self.rows(plan, self.train, training=True)) / len(batches)
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        return per_batch * train.gradient_accumulation_steps * processes

    def mixture(self, plan: PhasePlan) -> Mixture | None:
        """The mixture of a phase's rows; None if each comes once per epoch. Raises RecipeError as
        `quotas_of`.
        """
        if self.recipe.data.lists("train") and plan.phase.name not in self.mixtures:
            rows = self.rows(plan, self.train, training=True)
            self.mixtures[plan.phase.name] = mixture_of(self.recipe, rows)
        return self.mixtures.get(plan.phase.name)

    def source_shares(self, plan: PhasePlan) -> list[dict[str, Any]]:
        """The sources of a phase's rows in a list of them, see `setup.mixing.source_shares`."""
        if not self.recipe.data.lists("train"):
            return []
        return source_shares(self.recipe, self.rows(plan, self.train, training=True))

    def token_batches(self, plan: PhasePlan) -> TokenBatchSampler | None:
        """Token-budget batches of a phase; None if its batch size is in texts.

        Raises:
            RecipeError: as `TokenBatchSampler`.
        """
        name, budget = plan.phase.name, plan.train.batch_tokens
        if budget is None:
            return None
        if name not in self.batches:
            rows = self.rows(plan, self.train, training=True)
            shares = packer_of(self.loaded.base).shares
            train, processes = plan.train, int(os.environ.get("WORLD_SIZE", "1"))
            per_step = processes * train.gradient_accumulation_steps
            steps = max(train.max_steps, 0)
            batches = TokenBatchSampler(
                [row.sample.id for row in rows],
                row_tokens(rows, self.loaded.template, shares=shares),
                budget=budget,
                group_size=plan.train.texts_per_image,
                processes=processes,
                accumulation=plan.train.gradient_accumulation_steps,
                seed=self.recipe.run.seed,
                mixture=self.mixture(plan),
                epochs=lambda count: math.ceil(steps / math.ceil(count / per_step) or train.epochs),
            )
            logger.info(
                "phase %s: an epoch of %d texts is %d batches of %.1f texts and %.0f tokens "
                "(at most %d)",
                name,
                batches.rows,
                len(batches),
                batches.rows / len(batches),
                batches.total_tokens / len(batches),
                budget,
            )
            self.batches[name] = batches
        return self.batches[name]

    def steps(self, plan: PhasePlan) -> int:
        """Optimizer steps of a phase on one process."""
        train, batches = plan.train, self.token_batches(plan)
        if train.max_steps > 0:
            return train.max_steps
        if batches is not None:
            count = len(batches)
        else:
            rows = self.mixture(plan) or self.rows(plan, self.train, training=True)
            count = math.ceil(len(rows) / train.per_device_train_batch_size)
        updates = self.recipe.reward.num_iterations if is_reward(plan) else 1
        per_epoch = updates * math.ceil(count / train.gradient_accumulation_steps)
        return math.ceil(train.epochs * per_epoch)

    def save_weights(self, folder: Path) -> None:
        """Writes all weights trained so far as an adapter folder."""
        save_checkpoint(
            folder,
            self.loaded.model,
            self.loaded.handle,
            self.loaded.base.family,
            self.provenance,
            bridge=self.bridge,
            alignment=self.branch,
            objectives=self.custom,
        )

    def restore_weights(self, folder: Path) -> None:
        """Loads an adapter folder into the model."""
        restore_checkpoint(folder, self.loaded.model, self.loaded.handle)
        if self.branch is not None:
            restore_alignment(folder, self.branch.heads)
        restore_objectives(folder, self.custom)

    def objective(self, plan: PhasePlan, rows: list[Row]) -> tuple[nn.Module, Collate]:
        """Objective of a phase, and its collator."""
        loaded, recipe, packing = self.loaded, self.recipe, plan.train.packing
        if is_reward(plan):
            return reward_objective(loaded, recipe), collator_of(loaded, packing=packing)
        if plan.phase.objective == PREFERENCE:
            return preference_of(loaded, recipe.preference, packing=packing)
        return language_of(loaded, recipe, self.branch, self.custom, rows, packing=packing)
