"""Sets up a phase of a run: what it trains, its rows, objective, batches and arguments."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainingArguments

from qvft.adapters.checkpoint import bridge_names
from qvft.data.rows import Row, choose_rows, evaluation_rows
from qvft.data.streaming_collator import StreamingCollator
from qvft.log import get_logger
from qvft.recipe.phases import PhasePlan
from qvft.recipe.train import Spike
from qvft.setup.model import set_trainable
from qvft.training.arguments import recompute_activations, training_arguments, use_bf16
from qvft.training.batches.mixture import Mixture
from qvft.training.batches.numbered_rows import ViewDraw
from qvft.training.batches.streamed import StreamedBatches
from qvft.training.batches.token_budget_sampler import TokenBatchSampler
from qvft.training.compiling import compile_blocks
from qvft.training.completions import GENERATED, Completions, GreedyTexts
from qvft.training.distributed.fsdp import shard, without_autocast
from qvft.training.objectives.preference import PreferenceCollator, PreferenceObjective
from qvft.training.objectives.reference_logps import REFERENCE, with_reference
from qvft.training.optim import parameter_groups
from qvft.training.phase_rows import is_reward
from qvft.training.preflight import GradientCheck, check_image_matters, preflight_batch
from qvft.training.rewards.build import held_out_of, rollouts_of
from qvft.training.rewards.held_out import BEST, HeldOut
from qvft.training.rewards.rollouts import Rollouts
from qvft.training.training_run import TrainingRun

logger = get_logger("qvft.train")


@dataclass(frozen=True)
class PhaseSetup:
    """Everything needed to train a phase.

    Attributes:
        eval_rows: without them there is no evaluation.
        early_stopping: evaluations without a lower loss before it stops (patience), or None.
        batches: token-budget batches, instead of the arguments' batch size.
        stream: batches of a stream, instead of `train_rows`.
        rollouts: samples of a reward phase, from which it learns instead of from the rows' texts.
    """

    name: str
    module: nn.Module
    arguments: TrainingArguments
    groups: list[dict[str, Any]]
    train_rows: Sequence[Row]
    eval_rows: Sequence[Row] | None
    collator: Callable[..., Any]
    early_stopping: int | None
    texts_per_image: int
    callbacks: Sequence[TrainerCallback]
    spikes: Spike
    batches: TokenBatchSampler | None = None
    views: ViewDraw | None = None
    mixture: Mixture | None = None
    stream: StreamedBatches | None = None
    rollouts: Rollouts | None = None
    held_out: HeldOut | None = None
    completions: Completions | None = None


def phase_setup(work: TrainingRun, plan: PhasePlan, checkpoints: Path) -> PhaseSetup:
    """Sets up a phase as it begins: freezes and unfreezes the model, and computes reference
    log-probabilities with the weights as they are.

    Args:
        checkpoints: folder of the phase's checkpoints.
    """
    loaded, train, recipe = work.loaded, plan.train, work.recipe
    family = loaded.base.family
    if work.sharded and work.fsdp_module is None:
        for each in work.plans:  # weights trained in any phase are float32 before sharding
            set_trainable(loaded, each.trainable)
    set_trainable(loaded, plan.trainable)
    work.bridge |= bridge_names(loaded.model)
    recompute_activations(loaded.model, train.gradient_checkpointing)
    rows = work.rows(plan, work.train, training=True)
    asked = work.watched(plan)
    if asked:
        logger.info(
            "phase %s: every %d steps an evaluation on %d of %d texts (train.eval_limit)",
            plan.phase.name,
            train.eval_steps,
            len(asked),
            len(work.rows(plan, work.eval, training=False)),
        )
    module, collator = work.objective(plan, rows)
    if isinstance(module, PreferenceObjective) and isinstance(collator, PreferenceCollator):
        numbers = range(recipe.data.augmentations_per_image + 1)
        shown = [replace(row, view=view) for row in rows for view in numbers]
        collator = with_reference(
            module,
            collator,
            [*shown, *asked],
            file=checkpoints / REFERENCE,
            weights=work.bridge,
            provenance=work.provenance,
            batch_size=train.per_device_train_batch_size,
            bf16=use_bf16(train.mixed_precision),
            workers=recipe.data.num_workers,
        )
    if work.sharded:
        if work.fsdp_module is None:
            shard(module, loaded.model, family)
            work.fsdp_module = module
        module = without_autocast(work.fsdp_module)
    callbacks = [*work.callbacks]
    if train.preflight:
        place = next(module.parameters()).device
        check_image_matters(module, preflight_batch(collator, list(enumerate(rows)), place))
        callbacks.append(GradientCheck(loaded.model, family, waits=is_reward(plan)))
    compile_blocks(loaded.model, family, train.torch_compile)
    augmented = recipe.data.augmentations_per_image
    views = ViewDraw(augmented, recipe.run.seed) if augmented else None
    stream = _stream(work, plan, views)
    if stream is not None:
        collator = StreamingCollator(collator, loaded.collator.decode)
    is_pairs = bool(asked) and asked[0].rejected is not None  # all of them or none
    best = "eval_pair_loss" if is_pairs else "eval_token_loss"
    rollouts = held_out = None
    completions = _completions(work, plan, asked)
    if is_reward(plan):
        best = f"eval_{BEST}"
        rollouts = rollouts_of(loaded, recipe, plan, work.rewards)
        held_out = held_out_of(loaded, recipe, work.rewards)
    elif train.metric_for_best_model != "loss":
        best = f"eval_{GENERATED}{train.metric_for_best_model}"
    return PhaseSetup(
        name=plan.phase.name,
        module=module,
        arguments=training_arguments(
            train.model_dump(),
            output_dir=checkpoints,
            seed=recipe.run.seed,
            workers=recipe.data.num_workers,
            has_eval=work.eval is not None,
            best=best,
            greater_is_better=best not in ("eval_pair_loss", "eval_token_loss"),
        ),
        groups=parameter_groups(module, family, train.rates, weight_decay=train.weight_decay),
        train_rows=rows,
        eval_rows=asked or None,
        collator=collator,
        texts_per_image=train.texts_per_image,
        early_stopping=train.early_stopping_patience,
        callbacks=callbacks,
        spikes=train.spike,
        batches=work.token_batches(plan),
        views=views,
        mixture=work.mixture(plan),
        stream=stream,
        rollouts=rollouts,
        held_out=held_out,
        completions=completions,
    )


def _completions(work: TrainingRun, plan: PhasePlan, watched: list[Row]) -> Completions | None:
    """What a phase generates of the images of its evaluations; None: nothing."""
    metric, recipe = plan.train.metric_for_best_model, work.recipe
    writes = plan.phase.objective != "language" or recipe.objectives.lm > 0
    if work.eval is None or not watched or work.sharded or not writes:
        return None
    images = {row.sample.id for row in watched}
    samples = [one for one in work.eval.samples if one.id in images]
    rows = evaluation_rows(samples, texts=work.eval.source.texts)
    if not rows:  # pairs alone
        rows = [*{(row.sample.id, row.question): row for row in watched}.values()]
    answer, caption = recipe.eval.answer.max_new_tokens, recipe.eval.caption.max_new_tokens
    return Completions(
        GreedyTexts(
            work.loaded.model,
            work.loaded.collator,
            {"caption": caption, "question": answer},
            recipe.eval.batch_size,
        ),
        [] if metric == "loss" or is_reward(plan) else rows,
        choose_rows(rows, plan.train.eval_completions, spread=True),
        work.scores,
        metric,
    )


def _stream(work: TrainingRun, plan: PhasePlan, views: ViewDraw | None) -> StreamedBatches | None:
    """This process's batches of a streamed training split."""
    if work.train.stream is None:
        return None
    return StreamedBatches(
        work.train.stream,
        batch_size=plan.train.per_device_train_batch_size,
        group_size=plan.train.texts_per_image,
        buffer=work.train.source.shuffle_buffer,
        seed=work.recipe.run.seed,
        rank=int(os.environ.get("RANK", "0")),
        world=int(os.environ.get("WORLD_SIZE", "1")),
        texts=work.train.source.texts,
        on_bad=work.recipe.data.on_bad_image,
        check=work.loaded.collator.decode,
        views=views,
    )
