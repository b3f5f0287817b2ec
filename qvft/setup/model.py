"""Builds a recipe's model, processor, prompt template and collator."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import Blip2ForConditionalGeneration, PreTrainedModel

from qvft.adapters.checkpoint import LORA, check_base, restore_checkpoint
from qvft.adapters.freeze import mark_trainable
from qvft.adapters.lora import add_lora, load_lora
from qvft.adapters.manifest import read_manifest, require_untouched
from qvft.adapters.targets import lora_layers
from qvft.cpu_threads import cpu_cores, warn_if_busy
from qvft.data.collate import Collator, QuestionReader
from qvft.data.images.augmentation import Augmentation
from qvft.data.prompt import PromptTemplate
from qvft.errors import RecipeError
from qvft.garbage_collection import usual_collections
from qvft.models.base_checkpoint import BaseCheckpoint, find_checkpoint
from qvft.models.decoders import add_decoder, is_encoder_decoder, set_dropout
from qvft.models.families import COMPONENTS
from qvft.models.load import gpu_has_bf16, load_model, load_processor
from qvft.models.qvision.processing import plain_pixels
from qvft.progress import counted
from qvft.recipe.phases import phase_plans, require_trainable_decoder
from qvft.recipe.schema import Recipe
from qvft.recipe.trainable import Trainable
from qvft.setup.prompt_template import template_of
from qvft.setup.provenance import base_hash

if TYPE_CHECKING:
    from qvft.adapters.lora import PeftModel

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Loaded:
    """A loaded model with PEFT wrapper, processor, prompt template and collator."""

    base: BaseCheckpoint
    model: PreTrainedModel
    handle: PeftModel | None
    processor: Any
    template: PromptTemplate
    collator: Collator

    @property
    def blip2(self) -> Blip2ForConditionalGeneration:
        """The model, for what is refused with any family but `blip2`."""
        return cast(Blip2ForConditionalGeneration, self.model)


def device() -> torch.device:
    """The device of this process."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def use_threads(threads: int | None) -> None:
    """Sets the CPU threads of this process if there is no GPU.

    Args:
        threads: number of threads; None: cores divided by the processes on this host.
    """
    if not torch.cuda.is_available():
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(threads or max(1, cpu_cores() // processes))
        warn_if_busy()


def base_of(recipe: Recipe) -> BaseCheckpoint:
    """The recipe's base checkpoint, found but not loaded."""
    model = recipe.model
    add_decoder(model.decoder_type)
    if model.init == "random":
        for key in ("text_branch", "decoder"):
            if getattr(model, key) is not None:
                raise RecipeError(
                    f"random with model.{key}",
                    where="model.init",
                    expected=f"pretrained: model.{key} is added to trained weights",
                )
    base = find_checkpoint(
        model.id,
        revision=model.revision,
        family=model.family,
        text_branch=model.text_branch,
        query_tokens=model.query_tokens,
        image_size=model.image_size,
        decoder=model.decoder,
        decoder_revision=model.decoder_revision,
        seed=recipe.run.seed,
    )
    if base.decoder is not None and model.quantization.load_in_4bit:
        raise RecipeError(
            "true",
            where="model.quantization.load_in_4bit",
            expected="false: model.id and model.decoder are made into a QVision",
            do="merge a run of this model, then quantize the merged folder",
        )
    require_supported_settings(recipe, base.config)
    return base


def require_supported_settings(recipe: Recipe, config: Any) -> None:
    """Checks the settings that an encoder-decoder does not support.

    Raises:
        RecipeError: weights in float16, or a share of blocks to freeze.
    """
    if not is_encoder_decoder(config):
        return
    kind = config.text_config.model_type
    if recipe.model.dtype == "float16":
        raise RecipeError(
            f"float16 with a {kind} decoder, whose values overflow in it",
            where="model.dtype",
            expected="auto, bfloat16 or float32",
        )
    for plan in phase_plans(recipe):
        share = plan.trainable.frozen_decoder_fraction
        if share:
            raise RecipeError(
                f"{share} with a {kind} decoder, which has an encoder too",
                where="trainable.frozen_decoder_fraction",
                expected="0",
                do="train LoRA layers instead",
            )


def base_model(
    recipe: Recipe,
    base: BaseCheckpoint,
    *,
    quantized: bool = True,
    dtype: torch.dtype | None = None,
    place: torch.device | None = None,
) -> Loaded:
    """The base model without adapters.

    Args:
        quantized: as in the recipe; False loads the decoder unquantized.
        dtype: instead of the recipe's.
        place: device, instead of this process's.
    """
    use_threads(recipe.run.threads)
    auto = torch.bfloat16 if gpu_has_bf16() else torch.float32
    scheme = recipe.model.quantization.scheme if quantized else "none"
    set_dropout(base.config, recipe.trainable.decoder_dropout)
    random_seed = recipe.run.seed if recipe.model.init == "random" else None
    with counted(f"loading {base.id}"):
        model = load_model(
            base,
            dtype=dtype or DTYPES.get(recipe.model.dtype, auto),
            attention=recipe.model.kernel,
            quantize=scheme,
            double_quantize=recipe.model.quantization.bnb_4bit_use_double_quant,
            device=place or device(),
            random_seed=random_seed,
        )
    usual_collections()  # the libraries are imported now
    return with_tools(recipe, base, model)


def with_tools(recipe: Recipe, base: BaseCheckpoint, model: PreTrainedModel) -> Loaded:
    """Adds processor, prompt template and collator to a model."""
    processor = processor_of(recipe, base)
    template = template_of(recipe, base, processor)
    augmented, reader = recipe.data.augmentations_per_image, None
    if base.family.reads_question:
        positions = base.config.qformer_config.max_position_embeddings
        reader = QuestionReader(processor.qformer_tokenizer, positions)
    collator = Collator(
        template,
        processor.image_processor,
        recipe.data.max_image_pixels,
        cache={} if recipe.data.cache_images else None,
        reader=reader,
        augmentation=Augmentation(**recipe.data.augment.model_dump()) if augmented else None,
    )
    return Loaded(base, model, None, processor, template, collator)


def processor_of(recipe: Recipe, base: BaseCheckpoint) -> Any:
    """Processor of a base with the recipe's image preprocessing."""
    processor = load_processor(base)
    if recipe.data.preprocessing == "plain":
        processor.image_processor = plain_pixels(processor.image_processor)
    return processor


def with_fresh_adapters(
    loaded: Loaded, trainable: Trainable, *, parts: Collection[str] | None = None
) -> Loaded:
    """Adds new LoRA layers to the components `parts`; None: to those of `trainable`."""
    parts, lora = trainable.lora_parts if parts is None else parts, trainable.lora
    if not parts:
        return loaded
    handle = add_lora(
        loaded.model,
        lora_layers(loaded.model, loaded.base.family, parts, lora.target_modules),
        **lora.model_dump(exclude={"target_modules"}),
        base_id=loaded.base.id,
    )
    return replace(loaded, handle=handle)


def set_trainable(loaded: Loaded, trainable: Trainable) -> None:
    """Freezes and unfreezes components.

    Raises:
        RecipeError: as `require_trainable_decoder`.
    """
    modes = trainable.model_dump(include=set(COMPONENTS))
    require_trainable_decoder(trainable, quantized=getattr(loaded.model, "is_quantized", False))
    mark_trainable(
        loaded.model, loaded.base.family, modes, frozen_share=trainable.frozen_decoder_fraction
    )


def trained_model(
    run_dir: Path,
    recipe: Recipe,
    *,
    quantized: bool = True,
    dtype: torch.dtype | None = None,
    place: torch.device | None = None,
) -> Loaded:
    """Loads the model of a run: base and trained weights, in evaluation mode.

    Raises:
        CheckpointError: no finished adapter, a damaged one, or another base than in training.
    """
    folder = run_dir / "adapter"
    manifest = read_manifest(folder)
    require_untouched(folder, manifest)
    base = base_of(recipe)
    found = base_hash(recipe, base, recorded=manifest["base_weights_sha256"])
    check_base(manifest, base_id=base.id, weights_sha256=found)
    loaded = base_model(recipe, base, quantized=quantized, dtype=dtype, place=place)
    if (folder / LORA).is_file():
        loaded = replace(loaded, handle=load_lora(loaded.model, folder))
    for name, parameter in loaded.model.named_parameters():
        if name in manifest["bridge"]:
            parameter.data = parameter.data.float()
    restore_checkpoint(folder, loaded.model, loaded.handle)
    loaded.model.eval()
    return loaded
