"""Component tables and GPU memory estimate from a configuration, without weights."""

from __future__ import annotations

import math
from typing import cast

from transformers import Blip2Config, PretrainedConfig

from qvft.adapters.freeze import ComponentCount, total_count
from qvft.checking.findings import Component, Memory, PhaseFindings
from qvft.models.base_checkpoint import BaseCheckpoint
from qvft.models.decoders import DECODERS
from qvft.models.families import family_of
from qvft.models.image_size import config_with_image_size, vision_of
from qvft.models.query_count import config_with_queries
from qvft.models.question_aware.graft import require_plain_base
from qvft.models.qvision.configuration import QVisionConfig
from qvft.models.reference_configs import (
    known_configs,
    question_config,
    reference_qvision,
    with_known_decoder,
)
from qvft.recipe.phases import PhasePlan, phase_plans
from qvft.recipe.schema import Recipe
from qvft.setup.component_counts import phase_counts
from qvft.setup.model import require_supported_settings
from qvft.setup.start_run import start_run
from qvft.training.memory_estimate import estimate_memory, state_bytes

GPU, CPU = "GPU, bfloat16", "CPU, float32"
FROZEN_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def geometry_phases(recipe: Recipe, config: PretrainedConfig) -> tuple[PhaseFindings, ...]:
    """`phase_findings` of each phase from a configuration, with rows of maximum length."""
    family = family_of(config.model_type)
    image_tokens = config.num_query_tokens if family.image_tokens else 0
    row_tokens = image_tokens + recipe.data.max_text_tokens
    plans = phase_plans(recipe)
    return tuple(
        phase_findings(
            recipe,
            plan,
            found.components,
            config,
            lora_targets=found.lora_targets,
            row_tokens=row_tokens,
        )
        for plan, found in zip(plans, phase_counts(config, plans), strict=True)
    )


def known_base(recipe: Recipe) -> BaseCheckpoint | None:
    """The recipe's base with its published configuration, without network; None if not known."""
    model = recipe.model
    published = known_configs().get(model.id)
    config: PretrainedConfig | None = published
    if model.decoder is not None:
        config = with_known_decoder(model.id, model.decoder)
        if model.query_tokens is None and model.text_branch is None:  # refused with a QVision
            config = config or reference_qvision(model.id, model.decoder)
    elif published is not None and model.text_branch is not None:
        require_plain_base(published, model.id)
        config = question_config(cast(Blip2Config, published), model.text_branch)
    if config is None:
        return None
    family = family_of(config.model_type)
    if family.image_tokens:
        require_supported_settings(recipe, config)
        config = config_with_queries(config, model.query_tokens or config.num_query_tokens)
    if model.image_size is not None:
        config = config_with_image_size(config, model.image_size)
    return BaseCheckpoint(model.id, model.id, model.revision, config, family)


def phase_findings(
    recipe: Recipe,
    plan: PhasePlan,
    counts: list[ComponentCount],
    config: PretrainedConfig,
    *,
    lora_targets: tuple[str, ...],
    row_tokens: int,
    steps: int | None = None,
) -> PhaseFindings:
    """The findings of a phase, whose longest row has `row_tokens` tokens with image tokens, and
    which makes `steps` optimizer steps on one process, if known.
    """
    train, trainable = plan.train, plan.trainable
    texts_per_row = {"preference": 2, "reward": recipe.reward.num_generations}
    rows = train.per_device_train_batch_size * texts_per_row.get(plan.phase.objective, 1)
    text = config.text_config
    quantized = recipe.model.quantization.scheme != "none"
    has_dropout = trainable.lora.lora_dropout > 0 or trainable.decoder_dropout > 0
    decoder = DECODERS[text.model_type]
    optimizer = train.arguments.get("optim", "adamw_torch")
    images, tokens, batch = _step_size(plan, config, rows=rows, row_tokens=row_tokens)
    positions = text.max_position_embeddings if decoder.learned_positions else 0
    tables = 1 if text.tie_word_embeddings else 2
    unloads_vision = _unloads_vision(recipe)
    memory = []
    for device, automatic in ((GPU, 2), (CPU, 4)):
        estimate = estimate_memory(
            counts,
            frozen_bytes=FROZEN_BYTES.get(recipe.model.dtype, automatic),
            quantized=quantized,
            # Embeddings and an untied head are not quantized.
            embedding_weights=(tables * text.vocab_size + positions) * text.hidden_size,
            tokens=tokens,
            decoder_layers=text.num_hidden_layers,
            decoder_width=text.hidden_size,
            checkpointing=train.gradient_checkpointing,
            layer_bytes=decoder.dropout_bytes if has_dropout else decoder.lean_bytes,
            trained_bytes=state_bytes(optimizer),
            unloads_vision=unloads_vision,
            qformer_units=images * _qformer_units(config),
            vision_units=images * _vision_units(config, plan),
            frozen_float32=_frozen_float32(recipe, counts),
        )
        memory.append(Memory(device, **estimate._asdict()))
    assumes = (
        f"assumes {batch} per step, {optimizer}, "
        + ("recomputed activations, " if train.gradient_checkpointing else "")
        + ("a decoder in 4 bits, " if quantized else "")
        + ("a ViT that is unloaded once its features are cached, " if unloads_vision else "")
        + "without the allocator's overhead"
    )
    return PhaseFindings(
        name=plan.phase.name,
        components=tuple(_component(row) for row in counts),
        total=_component(total_count(counts)),
        lora_targets=lora_targets,
        memory=tuple(memory),
        memory_assumes=assumes,
        steps=steps,
    )


def _step_size(
    plan: PhasePlan, config: PretrainedConfig, *, rows: int, row_tokens: int
) -> tuple[int, int, str]:
    """Images and decoder tokens of a step on one device if every row has the maximum length, and
    the batch in words. Packed texts of an image share its prefix.
    """
    train = plan.train
    if train.batch_tokens:
        images = math.ceil(max(1, train.batch_tokens // row_tokens) / train.texts_per_image)
        return images, train.batch_tokens, f"{train.batch_tokens} tokens"
    images = math.ceil(train.per_device_train_batch_size / train.texts_per_image)
    tokens, batch = rows * row_tokens, f"{rows} rows of {row_tokens} tokens"
    if train.packing and images < rows and family_of(config.model_type).shares_prefix(config):
        tokens -= (rows - images) * (config.num_query_tokens + 1)
        batch += f" that share the prefixes of {images} images"
    return images, tokens, batch


def _unloads_vision(recipe: Recipe) -> bool:
    """Whether training caches the features of all images first, and then needs no ViT."""
    frozen = all(plan.trainable.vision == "frozen" for plan in phase_plans(recipe))
    train = recipe.data.train
    streamed = train is not None and not isinstance(train, list) and train.stream
    return recipe.data.features == "auto" and frozen and not streamed


def _vision_units(config: PretrainedConfig, plan: PhasePlan) -> int:
    """Patches times layers and width of the ViT, if the phase trains it."""
    if plan.trainable.vision == "frozen":
        return 0
    tower = vision_of(config)
    patches = (tower.image_size // tower.patch_size) ** 2 + 1
    return int(patches * tower.num_hidden_layers * tower.hidden_size)


def _qformer_units(config: PretrainedConfig) -> int:
    """Query tokens times blocks and width of the Q-Former."""
    if isinstance(config, QVisionConfig):
        return config.num_states * config.qformer_num_blocks * config.qformer_hidden_size
    qformer = config.qformer_config
    return int(config.num_query_tokens * qformer.num_hidden_layers * qformer.hidden_size)


def _frozen_float32(recipe: Recipe, counts: list[ComponentCount]) -> int:
    """Number of weights that the run it starts from trained in full and this one freezes."""
    start = start_run(recipe)
    if start is None:
        return 0
    trained = {row.component: row.trainable for row in counts}
    before = start.bridge_weights().items()
    return sum(max(0, number - trained.get(part, 0)) for part, number in before)


def _component(row: ComponentCount) -> Component:
    return Component(row.component, row.total, row.trainable, row.percent, row.title)
