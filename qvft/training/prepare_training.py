"""Prepares training from a recipe: checks it, reads the data, loads the model, adds adapters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from transformers import TrainerCallback, set_seed

from qvft.adapters.targets import lora_layers
from qvft.data.rows import Row, evaluation_rows
from qvft.inference.generation_trial import tried_fields
from qvft.inference.reward_function import RewardFactory, RewardFunction, TextScores
from qvft.models.base_checkpoint import BaseCheckpoint
from qvft.models.distributed import processes
from qvft.models.flex_attention import require_flex, use_flex
from qvft.models.reference_configs import meta_model
from qvft.recipe.phases import PhasePlan, lora_of_phases, phase_plans
from qvft.recipe.schema import Recipe
from qvft.setup.alignment_heads import new_branch, require_alignable
from qvft.setup.data import Split, Texts, read_split
from qvft.setup.learning_rates import with_rates
from qvft.setup.model import Loaded, base_model, base_of, device, processor_of, with_fresh_adapters
from qvft.setup.prompt_template import template_of
from qvft.setup.provenance import provenance_of
from qvft.setup.start_run import start_run
from qvft.setup.start_weights import load_start, load_start_heads, require_places, require_same_base
from qvft.training.compiling import require_compiler
from qvft.training.completions import reference_as_text, require_score
from qvft.training.distributed.fsdp import asked_to_shard, require_shardable
from qvft.training.objectives.objective_table import custom_objectives
from qvft.training.phase_rows import is_reward, require_rows
from qvft.training.recorded_data import data_hashes, image_hashes
from qvft.training.rehearsal import require_trainable
from qvft.training.rewards.build import functions_of, require_sample_positions
from qvft.training.training_run import TrainingRun


def prepare_training(
    recipe: Recipe,
    *,
    given: Loaded | None = None,
    texts: Texts | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    rewards: RewardFactory | None = None,
    scores: TextScores | None = None,
) -> TrainingRun:
    """Checks a recipe, reads its data, loads its model and adds adapters.

    Args:
        given: the recipe's base model, if already loaded; it gets the adapters.
        rewards: builds the functions of reward phases: `evaluation.rewards.reward_functions`.
        scores: `evaluation.scoring.text_scores`; None where nothing is evaluated.
    """
    processes()  # joins the process group, or refuses the launcher, before anything long begins
    sharded = asked_to_shard()
    base = base_of(recipe)
    recipe = with_rates(recipe, base)
    plans = phase_plans(recipe)
    start = start_run(recipe)
    if start is not None:
        require_places(start, base.config, plans)
        require_same_base(start, recipe, base)
    require_alignable(recipe, base)
    custom = custom_objectives(recipe.objectives.further, base)
    if sharded:
        require_shardable(base, custom, plans)
    if recipe.model.attn_implementation == "flex":
        require_flex(base.config, device())
    if any(plan.train.torch_compile for plan in plans):
        require_compiler(device())
    require_settings(recipe, base, plans)
    if given is None:
        # Refuses a prompt that does not fit before the images are checked.
        template_of(recipe, base, processor_of(recipe, base))
    texts = texts or {}
    train = read_split(recipe, "train", texts.get("train"))
    # Only evaluation reads a test split; training reads it only if asked to evaluate on it.
    watched = any(plan.train.eval_steps is not None for plan in plans)
    evaluation = read_split(recipe, "eval", texts.get("eval")) if watched else None
    require_rows(plans, train, training=True)
    if evaluation is not None:
        require_rows(plans, evaluation, training=False)
    functions: Mapping[str, RewardFunction] = {}
    if any(map(is_reward, plans)):
        assert rewards is not None, "a recipe with a reward phase needs reward functions"
        require_sample_positions(recipe, base)
        known = {"train": _evaluation_rows(train)}
        if evaluation is not None:
            known["eval"] = _evaluation_rows(evaluation)
        functions = functions_of(recipe, known, rewards)
    metrics = {plan.train.metric_for_best_model for plan in plans if not is_reward(plan)} - {"loss"}
    if metrics and evaluation is not None and scores is not None:
        references = [reference_as_text(*pair) for pair in enumerate(_evaluation_rows(evaluation))]
        found = scores(references) if references else {}
        for metric in sorted(metrics):
            require_score(metric, found)
    set_seed(recipe.run.seed)
    # A model about to be sharded is not moved to the GPU whole.
    place = torch.device("cpu") if sharded else None
    loaded = given or base_model(recipe, base, place=place)
    lora = lora_of_phases(plans)
    if lora is not None:
        loaded = with_fresh_adapters(loaded, lora[0], parts=lora[1])
    if start is not None:
        loaded = load_start(start, loaded)
    if recipe.model.attn_implementation == "flex":
        use_flex(loaded.model)
    splits = {"train": train, "eval": evaluation}
    provenance = provenance_of(recipe, base, data_hashes(splits), image_hashes(splits))
    if start is not None:
        provenance["started_from"] = start.facts
    run = TrainingRun(
        recipe,
        loaded,
        train,
        evaluation,
        plans,
        provenance,
        new_branch(recipe, loaded),
        sharded,
        callbacks=callbacks,
        rewards=functions,
        scores=scores,
        custom={
            name: objective.build(loaded.model).float().to(loaded.model.device)
            for name, (objective, _) in custom.items()
        },
        bridge=set(start.manifest["bridge"]) if start is not None else set(),
    )
    if start is not None:
        load_start_heads(start, run.branch, run.custom)
    if recipe.data.lists("train"):
        provenance["sources"] = {plan.phase.name: run.source_shares(plan) for plan in plans}
    for plan in plans:
        run.token_batches(plan)  # reported before anything long begins
    return run


def _evaluation_rows(split: Split) -> list[Row]:
    return evaluation_rows(split.samples, texts=split.source.texts)


def require_settings(recipe: Recipe, base: BaseCheckpoint, plans: Sequence[PhasePlan]) -> None:
    """Checks settings that need neither data nor weights.

    Training and decoding are tried on a tiny model if a recipe sets more than qvft's own keys.

    Raises:
        RecipeError: LoRA targets match no layer, or transformers, peft or bitsandbytes refuses a
            setting; the message names its key.
    """
    lora = lora_of_phases(plans)
    if lora is not None:
        lora_layers(meta_model(base.config), base.family, lora[1], lora[0].lora.target_modules)
    tried_fields(recipe, base)
    for plan in plans:
        where = f"phases.{plan.phase.name}.train" if plan.phase.train else "train"
        require_trainable(plan.train.model_dump(), workers=recipe.data.num_workers, where=where)
