"""Parameter counts per component and phase, on the meta device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transformers import PretrainedConfig

from qvft.adapters.freeze import ComponentCount, count_blocks, count_components, mark_trainable
from qvft.adapters.lora import add_lora
from qvft.adapters.targets import resolve_targets
from qvft.models.families import COMPONENTS, family_of
from qvft.models.reference_configs import meta_model
from qvft.recipe.phases import PhasePlan


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
    lora = next((plan.trainable.lora for plan in plans if plan.trainable.decoder == "lora"), None)
    targets: list[str] = []
    if lora is not None:
        targets = resolve_targets(model, family, lora.target_modules)
        add_lora(model, targets, **lora.model_dump(exclude={"target_modules"}))
    for plan in plans:
        modes = plan.trainable.model_dump(include=set(COMPONENTS))
        mark_trainable(model, family, modes, frozen_share=plan.trainable.frozen_decoder_fraction)
        yield PhaseCounts(
            count_components(model, family),
            count_blocks(model, family),
            tuple(targets) if plan.trainable.decoder == "lora" else (),
        )
