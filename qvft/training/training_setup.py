"""Sets up training from a recipe: data, model, phases."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn
from transformers import TrainerCallback, set_seed

from qvft.adapters.checkpoint import (
    Provenance,
    bridge_names,
    restore_alignment,
    restore_checkpoint,
    restore_objectives,
    save_checkpoint,
)
from qvft.adapters.freeze import ComponentCount, count_components
from qvft.data.data_warnings import evaluation_warnings, few_steps, training_warnings
from qvft.data.rows import Row, evaluation_rows, training_rows
from qvft.data.streaming_collator import StreamingCollator
from qvft.errors import RecipeError
from qvft.log import get_logger, is_main_process
from qvft.models.distributed import processes
from qvft.models.flex_attention import use_flex
from qvft.models.unload_vision import unload_vision
from qvft.recipe.phases import PhasePlan, phase_plans
from qvft.recipe.schema import Recipe
from qvft.setup.alignment_heads import TextBranch, new_branch, require_alignable
from qvft.setup.data import Split, Texts, read_split
from qvft.setup.feature_cache import with_features
from qvft.setup.model import (
    Loaded,
    base_model,
    base_of,
    device,
    provenance_of,
    set_trainable,
    with_fresh_adapters,
)
from qvft.setup.query_similarity import collapse_warning, query_similarity
from qvft.training.arguments import (
    check_arguments,
    recompute_activations,
    training_arguments,
)
from qvft.training.batches.build import streamed_batches, token_batches, view_draw
from qvft.training.batches.token_budget_sampler import TokenBatchSampler
from qvft.training.compiling import compile_blocks
from qvft.training.distributed.fsdp import asked_to_shard, shard, without_autocast
from qvft.training.kernels import require_kernels, require_shardable
from qvft.training.objectives.build import Collate, objective_of, packer_of
from qvft.training.objectives.custom import CustomLoss
from qvft.training.objectives.objective_table import custom_objectives
from qvft.training.optim import parameter_groups
from qvft.training.phases import PhaseSetup
from qvft.training.preflight import GradientCheck, check_image_matters, distinct_first
from qvft.training.recorded_data import data_hashes, image_hashes
from qvft.training.recovery.spikes import SpikeRule
from qvft.training.settings_check import require_settings

logger = get_logger("qvft.train")


@dataclass
class TrainingSetup:
    """Everything needed to train a recipe.

    Attributes:
        recipe: the recipe.
        loaded: the model, with LoRA layers if any phase trains them.
        train, eval: the data, of a stream its first samples; `eval` is None without evaluation
            data.
        plans: the phases.
        provenance: for the manifest.
        branch: alignment heads, if the recipe has alignment objectives.
        sharded: whether FSDP shards the weights.
        custom: losses of the recipe's custom objectives, by name.
        bridge: names of the non-LoRA weights trained by any phase so far.
        batches: token-budget batches per phase, cached.
        cut: the FSDP-sharded objective, once sharded.
        callbacks: the caller's, for the trainer of each phase.
    """

    recipe: Recipe
    loaded: Loaded
    train: Split
    eval: Split | None
    plans: list[PhasePlan]
    provenance: Provenance
    branch: TextBranch | None = None
    sharded: bool = False
    custom: dict[str, CustomLoss] = field(default_factory=dict)
    bridge: set[str] = field(default_factory=set)
    batches: dict[str, TokenBatchSampler | None] = field(default_factory=dict)
    cut: nn.Module | None = None
    callbacks: Sequence[TrainerCallback] = ()

    def counts(self, plan: PhasePlan) -> list[ComponentCount]:
        """Component table of a phase; freezes and unfreezes the model accordingly."""
        set_trainable(self.loaded, plan.trainable)
        return count_components(self.loaded.model, self.loaded.base.family)

    def cache_features(self) -> None:
        """Fills the feature cache and unloads the ViT, if no phase needs it."""
        sees = any(plan.trainable.vision != "frozen" for plan in self.plans)
        if sees or self.recipe.data.features == "off":
            return
        if self.train.stream is not None:
            logger.info("a stream's features are not cached: the ViT runs in every step")
            return
        watched = self.eval.samples if self.eval is not None else []
        set_trainable(self.loaded, self.plans[0].trainable)
        if self.sharded:  # stays in CPU memory until it is sharded
            self.loaded.model.vision_model.to(device())
        self.loaded = with_features(self.loaded, self.recipe, watched, augmented=self.train.samples)
        if self.loaded.collator.features is not None:
            unload_vision(self.loaded.model)

    def needed_bytes(self) -> int:
        """Disk space needed for the kept checkpoints (weights and AdamW's state) and the adapter.

        Trained weights are float32; a checkpoint holds three values per weight.
        """
        largest = max(sum(row.trainable for row in self.counts(plan)) for plan in self.plans)
        if self.branch is not None:
            largest += sum(weight.numel() for weight in self.branch.heads.parameters())
        largest += sum(w.numel() for loss in self.custom.values() for w in loss.parameters())
        kept = max(plan.train.save_total_limit for plan in self.plans)
        return 4 * largest * (3 * (kept + 1) + 1)

    def rows(self, plan: PhasePlan, split: Split | None, *, training: bool) -> list[Row]:
        """Rows of a split that a phase uses."""
        if split is None:
            return []
        expand = training_rows if training else evaluation_rows
        return expand(split.samples, texts=split.source.texts)

    def token_batches(self, plan: PhasePlan) -> TokenBatchSampler | None:
        """Token-budget batches of a phase; None if its batch size is in texts.

        Raises:
            RecipeError: as `TokenBatchSampler`.
        """
        name = plan.phase.name
        if name not in self.batches:
            rows = self.rows(plan, self.train, training=True)
            self.batches[name] = token_batches(
                plan.train,
                rows,
                self.loaded.template,
                shares=packer_of(self.loaded.base).shares,
                seed=self.recipe.run.seed,
                phase=name,
            )
        return self.batches[name]

    def steps(self, plan: PhasePlan) -> int:
        """Optimizer steps of a phase on one process."""
        if plan.train.max_steps > 0:
            return plan.train.max_steps
        by_tokens = self.token_batches(plan)
        rows = self.rows(plan, self.train, training=True)
        count = (
            math.ceil(len(rows) / plan.train.per_device_train_batch_size)
            if by_tokens is None
            else len(by_tokens)
        )
        return math.ceil(
            plan.train.epochs * math.ceil(count / plan.train.gradient_accumulation_steps)
        )

    def warnings(self) -> list[str]:
        """Warnings about the data and the length of training."""
        split, collator = self.train, self.loaded.collator
        rows = training_rows(split.samples, texts=split.source.texts)
        found = training_warnings(rows, collator, images=len(split.samples), name=split.name)
        if self.eval is not None:
            asked = evaluation_rows(self.eval.samples, texts=self.eval.source.texts)
            found += evaluation_warnings(
                asked, collator, images=len(self.eval.samples), name=self.eval.name
            )
        return [*found, *self.further_warnings()]

    def further_warnings(self) -> list[str]:
        """Warnings that depend on phases and objectives, not on the data alone."""
        found: list[str] = []
        if self.branch is not None:
            rows = training_rows(self.train.samples, texts=self.train.source.texts)
            captions = [row.target for row in rows if row.kind == "caption"]
            found += self.branch.warnings(captions, name=self.train.name)
        for plan in self.plans:
            found += few_steps(plan.phase.name, self.steps(plan))
        return found

    def phase_setups(self) -> list[Callable[[Path], PhaseSetup]]:
        """Per phase, a function that prepares the model and sets the phase up."""
        return [partial(self._set_up, plan) for plan in self.plans]

    def save_weights(self, folder: Path) -> None:
        """Writes all weights trained so far as an adapter folder."""
        loaded = self.loaded
        save_checkpoint(
            folder,
            loaded.model,
            loaded.handle,
            loaded.base.family,
            self.provenance,
            bridge=self.bridge,
            alignment=self.branch.saved if self.branch is not None else None,
            objectives=self.custom,
        )

    def look_at_queries(self) -> list[str]:
        """Warning if the query tokens have collapsed, on a few training images.

        Not checked under FSDP, which would need all processes.
        """
        if self.sharded or not is_main_process():
            return []
        similarity = query_similarity(self.loaded, self.train.samples)
        return [] if similarity is None else collapse_warning(similarity)

    def restore_weights(self, folder: Path) -> None:
        """Loads an adapter folder into the model."""
        restore_checkpoint(folder, self.loaded.model, self.loaded.handle)
        if self.branch is not None:
            restore_alignment(folder, self.branch.heads)
        restore_objectives(folder, self.custom)

    def _set_up(self, plan: PhasePlan, checkpoints: Path) -> PhaseSetup:
        loaded, train = self.loaded, plan.train
        self._set_trainable(plan)
        self.bridge |= bridge_names(loaded.model)
        recompute_activations(loaded.model, train.gradient_checkpointing)
        rows = self.rows(plan, self.train, training=True)
        if not rows:
            raise RecipeError("holds no text to train on", where="data.train")
        module, collator = self.objective(plan, rows)
        if self.sharded:
            module = self._cut(module)
        callbacks = [*self.callbacks]
        if train.preflight:
            self._preflight(module, collator, rows)
            callbacks.append(GradientCheck(loaded.model, loaded.base.family))
        compile_blocks(loaded.model, loaded.base.family, train.torch_compile)
        views, stream = view_draw(self.recipe), None
        if self.train.stream is not None:
            stream = streamed_batches(
                self.train.stream, self.recipe, train, loaded.collator, views=views
            )
            collator = StreamingCollator(collator, loaded.collator.decode)
        return PhaseSetup(
            name=plan.phase.name,
            module=module,
            arguments=training_arguments(
                train.model_dump(),
                output_dir=checkpoints,
                seed=self.recipe.run.seed,
                workers=self.recipe.data.num_workers,
                has_eval=self.eval is not None,
            ),
            groups=parameter_groups(
                module,
                loaded.base.family,
                train.learning_rate.model_dump(),
                weight_decay=train.weight_decay,
            ),
            train_rows=rows,
            eval_rows=self.rows(plan, self.eval, training=False) or None,
            collator=collator,
            texts_per_image=train.texts_per_image,
            early_stopping=train.early_stopping_patience,
            callbacks=callbacks,
            spikes=SpikeRule(**train.spike.model_dump()),
            batches=self.token_batches(plan),
            views=views,
            stream=stream,
        )

    def _set_trainable(self, plan: PhasePlan) -> None:
        if self.sharded and self.cut is None:
            # Weights trained in any phase are float32 before sharding.
            for each in self.plans:
                set_trainable(self.loaded, each.trainable)
        set_trainable(self.loaded, plan.trainable)

    def _cut(self, module: nn.Module) -> nn.Module:
        """The sharded objective; the first phase's serves all phases."""
        if self.cut is None:
            shard(module, self.loaded.model, self.loaded.base.family)
            self.cut = module
        return without_autocast(self.cut)

    def objective(self, plan: PhasePlan, rows: list[Row]) -> tuple[nn.Module, Collate]:
        """Objective of a phase, and its collator."""
        return objective_of(self.recipe, self.loaded, self.branch, plan, rows, custom=self.custom)

    def _preflight(self, module: nn.Module, collator: Callable, rows: list[Row]) -> None:
        chosen = distinct_first([row.sample.id for row in rows], 4)
        batch = collator([(index, rows[index]) for index in chosen])
        place = next(module.parameters()).device
        check_image_matters(module, {key: value.to(place) for key, value in batch.items()})


def training_setup(
    recipe: Recipe,
    *,
    given: Loaded | None = None,
    texts: Texts | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> TrainingSetup:
    """Reads the data, loads the model and adds adapters.

    Args:
        given: the recipe's base model, if already loaded; it gets the adapters.
        texts: from `before_torch.training_texts`, if already read.
        callbacks: for the trainer of each phase, after qvft's own.

    Raises:
        UserError: whatever is wrong with the recipe, the data or the base checkpoint.
    """
    plans = phase_plans(recipe)
    for plan in plans:
        check_arguments(plan.train.model_dump())  # reported before anything is loaded
    processes()  # joins the process group, or refuses the launcher, before anything long begins
    sharded = asked_to_shard()
    base = base_of(recipe)
    if sharded:
        require_shardable(recipe, base)
    require_alignable(recipe, base)
    custom = custom_objectives(recipe.objectives.further, base)
    require_kernels(recipe, base, plans)
    require_settings(recipe, base, plans)
    texts = texts or {}
    train = read_split(recipe, "train", texts.get("train"))
    # Only evaluation reads a test split; training reads it only if asked to evaluate on it.
    watched = any(plan.train.eval_steps is not None for plan in plans)
    evaluation = read_split(recipe, "eval", texts.get("eval")) if watched else None
    for which, split, purpose in (("train", train, "train"), ("eval", evaluation, "evaluate")):
        if split is not None and not training_rows(split.samples, texts=split.source.texts):
            raise RecipeError(f"holds no text to {purpose} on", where=f"data.{which}")
    set_seed(recipe.run.seed)
    # A model about to be sharded is not moved to the GPU whole.
    place = torch.device("cpu") if sharded else None
    loaded = given or base_model(recipe, base, place=place)
    with_lora = next((plan.trainable for plan in plans if plan.trainable.decoder == "lora"), None)
    if with_lora is not None:
        loaded = with_fresh_adapters(loaded, recipe, with_lora)
    if recipe.model.attn_implementation == "flex":
        use_flex(loaded.model)
    splits = {"train": train, "eval": evaluation}
    provenance = replace(
        provenance_of(recipe, base, data_hashes(splits)), images_sha256=image_hashes(splits)
    )
    branch = new_branch(recipe, loaded)
    work = TrainingSetup(
        recipe,
        loaded,
        train,
        evaluation,
        plans,
        provenance,
        branch,
        sharded,
        callbacks=callbacks,
        custom={
            name: objective.build(loaded.model).float().to(loaded.model.device)
            for name, (objective, _) in custom.items()
        },
    )
    for plan in plans:
        work.token_batches(plan)  # reported before anything long begins
    return work
