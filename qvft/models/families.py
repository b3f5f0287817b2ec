"""Table of model families: module paths of ViT, Q-Former, projection and decoder.

A part is an attribute path from the model's root. Freezing, counting, saving and merging use these
names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qvft.dotted_names import import_dotted, is_dotted
from qvft.errors import ModelError, RecipeError
from qvft.models.decoders import BLIP2, DECODERS, QVISION, decoder_of, is_encoder_decoder

RETRIEVAL_CLASS = "Blip2ForImageTextRetrieval"
"""Class of transformers with BLIP-2's ViT, Q-Former and alignment heads, and no decoder."""
COMPONENTS = ("vision", "qformer", "query_tokens", "language_projection", "decoder")


@dataclass(frozen=True)
class Family:
    """A model family.

    Attributes:
        name: value of `model.family`.
        model_class: name of the model's class, used unchanged.
        module: where that class is defined.
        stages: module of its forward pass, with the functions of `forward_stages.py`.
        model_type: `model_type` in its config.json.
        parts: component name (see `COMPONENTS`) to parameter-name prefix.
        decoders: which rows of `decoders.DECODERS` it supports, by their `families`.
        reads_question: whether its Q-Former reads the prompt as well as the image.
        image_tokens: whether rows begin with `<image>` tokens, one per query.
        marked: whether a text is enclosed in the tokenizer's bos and eos tokens, with a space
            inside each.
        titles: names of components in tables per `model_type`, if different.
    """

    name: str
    model_class: str
    model_type: str
    parts: dict[str, str]
    stages: str
    module: str = "transformers"
    decoders: str = BLIP2
    reads_question: bool = False
    image_tokens: bool = True
    marked: bool = False
    titles: Mapping[str, str] = field(default_factory=dict)

    def shares_prefix(self, config: Any) -> bool:
        """Whether all rows of an image have the same prompt prefix in the decoder.

        Not if the Q-Former reads the question, not if text and image are fused after the decoder,
        which then sees no visual tokens, and not if an encoder reads them.
        """
        prefix_of_image = self.image_tokens and not self.reads_question
        return prefix_of_image and not is_encoder_decoder(config)

    def blocks(self, config: Any) -> tuple[str, ...]:
        """Prefixes of the decoder's blocks, an encoder's first: where LoRA targets are searched."""
        return decoder_of(config).blocks

    def stop_text(self, config: Any) -> str:
        """End of training targets and stop string of generation; empty: the end token.

        A marked text ends with the tokenizer's end token.
        """
        return "" if self.marked else decoder_of(config).stop_text

    def title(self, component: str, config: Any) -> str:
        """Name of a component in tables, for a model of this configuration."""
        own = {"vision": "vision_config", "decoder": "text_config", "qformer": ""}.get(component)
        if own is None:
            return component.replace("_", " ")
        part = getattr(config, own) if own else config
        return self.titles.get(part.model_type, component)

    def component(self, parameter: str) -> str:
        """The component of a parameter, `adapters` for LoRA layers; raises ModelError for none."""
        part = self.part(parameter)
        return "adapters" if ".lora_" in parameter else part

    def part(self, name: str) -> str:
        """The component that a module or parameter is in; raises ModelError for none."""
        for component, prefix in self.parts.items():
            if name == prefix or name.startswith(prefix + "."):
                return component
        raise ModelError(f"parameter {name} belongs to no part of family {self.name}")


_BLIP2_PARTS = {
    "vision": "vision_model",
    "qformer": "qformer",
    "query_tokens": "query_tokens",
    "language_projection": "language_projection",
    "decoder": "language_model",
}

FAMILIES = {
    "blip2": Family(
        name="blip2",
        model_class="Blip2ForConditionalGeneration",
        model_type="blip-2",
        parts=_BLIP2_PARTS,
        stages="qvft.models.blip2",
    ),
    "blip2_question": Family(
        name="blip2_question",
        model_class="InstructBlipForConditionalGeneration",
        model_type="instructblip",
        parts=_BLIP2_PARTS,
        stages="qvft.models.question_aware.forward_stages",
        reads_question=True,
    ),
    # Text and image are fused after the decoder, so there is neither prefix nor projection.
    "qvision": Family(
        name="qvision",
        model_class="QVisionForConditionalGeneration",
        model_type="qvision",
        parts={"vision": "vision_model", "decoder": "language_model", "qformer": "qformer"},
        stages="qvft.models.qvision.forward_stages",
        module="qvft.models.qvision.modeling",
        decoders=QVISION,
        image_tokens=False,
        marked=True,
        titles={
            "clip": "CLIP encoder",
            "clip_vision_model": "CLIP encoder",
            "siglip": "SigLIP encoder",
            "siglip_vision_model": "SigLIP encoder",
            "dinov2": "DINOv2 encoder",
            "dinov2_with_registers": "DINOv2 encoder",
            "qvision": "Q-Former",
            **{kind: decoder.title for kind, decoder in DECODERS.items()},
        },
    ),
}


def register_family(family: Family) -> Family:
    """Adds a family; returns it. `AutoConfig` must know its configuration.

    Raises:
        ValueError: another family has its name or its model type.
    """
    for other in FAMILIES.values():
        taken = other.name == family.name or other.model_type == family.model_type
        if taken and other != family:
            raise ValueError(f"family {other.name} ({other.model_type}) is already in the table")
    FAMILIES[family.name] = family
    return family


def add_family(name: str) -> str:
    """The family's plain name; a dotted name `package.module.NAME` is added to the table first.

    Raises:
        RecipeError: it is not a `Family`, or the table has another of its name or model type.
    """
    if not is_dotted(name):
        return name
    family = import_dotted(name, Family, where="model.family")
    try:
        return register_family(family).name
    except ValueError as error:
        raise RecipeError(f'"{name}": {error}', where="model.family") from error


def family_of(model_type: str, *, expected: str = "auto") -> Family:
    """The family of a checkpoint by the `model_type` of its config.

    Raises:
        ModelError: no family has that type, or it is another one.
    """
    for family in FAMILIES.values():
        if family.model_type == model_type and expected in ("auto", family.name):
            return family
    known = ", ".join(f"{f.name} ({f.model_type})" for f in FAMILIES.values())
    raise ModelError(
        f'model_type "{model_type}" with model.family={expected}', expected=f"one of {known}"
    )
