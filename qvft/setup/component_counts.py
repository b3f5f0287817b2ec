"""Parameter counts per component and phase, on the meta device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transformers import PretrainedConfig

from qvft.adapters.freeze import ComponentCount, count_blocks, count_components, mark_trainable
from qvft.adapters.lora import add_lora
from qvft.adapters.targets import lora_layers
from qvft.models.families import COMPONENTS, family_of
from qvft.models.reference_configs import meta_model
from qvft.recipe.phases import PhasePlan, lora_of_phases


@dataclass(frozen=True)
class PhaseCounts:
    """Parameter counts of a phase: its component table; number of decoder blocks, and of trained
    ones; modules with trained LoRA.
    """

    components: list[ComponentCount]
    decoder_blocks: tuple[int, int]
    lora_targets: tuple[str, ...]


def phase_counts(config: PretrainedConfig, plans: Sequence[PhasePlan]) -> Iterator[PhaseCounts]:
    """Parameter counts of each phase, without loading the model.

    LoRA layers are added once for all phases, as in training.
    """
    family, model = family_of(config.model_type), meta_model(config)
    found = lora_of_phases(plans)
    targets: list[str] = []
    if found is not None:
        lora, parts = found[0].lora, found[1]
        targets = lora_layers(model, family, parts, lora.target_modules)
        add_lora(model, targets, **lora.model_dump(exclude={"target_modules"}))
    for plan in plans:
        modes = plan.trainable.model_dump(include=set(COMPONENTS))
        mark_trainable(model, family, modes, frozen_share=plan.trainable.frozen_decoder_fraction)
        yield PhaseCounts(
            count_components(model, family),
            count_blocks(model, family),
            tuple(name for name in targets if family.part(name) in plan.trainable.lora_parts),
        )
