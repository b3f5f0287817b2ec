"""BLIP-2 and InstructBLIP of real size and random weights, made on the device; images and texts."""

from __future__ import annotations

import copy
import functools
import json
import random
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    Blip2Config,
    CLIPConfig,
    GPTNeoConfig,
    InstructBlipConfig,
    InstructBlipProcessor,
    PreTrainedModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from qvft.models.families import family_of
from qvft.models.load import model_class
from qvft.models.reference_configs import (
    INITIALIZER_RANGE,
    known_configs,
    with_known_decoder,
)

sys.path += [str(Path(__file__).resolve().parents[at]) for at in (1, 2)]  # tests/, and tools/'s

import tiny_models

from tools.tiny_blip2.drawn import captions, draw, questions, sample_scene
from tools.tiny_blip2.geometry import EOS_ID, PAD_ID, VOCABULARY_SIZE

TEXTS = 5
"""Texts per image, as COCO has captions."""


@dataclass(frozen=True)
class Geometry:
    """A published model whose cost is measured.

    Attributes:
        checkpoint: its hub id.
        decoder: hub id of another decoder behind its ViT and Q-Former.
        image_size: pixels a side, if not those of the checkpoint.
        reads_questions: the texts are answers; otherwise captions.
    """

    checkpoint: str
    decoder: str | None = None
    image_size: int | None = None
    reads_questions: bool = False

    def config(self, *, tiny: bool) -> Blip2Config | InstructBlipConfig:
        """The published configuration with the special tokens of the tiny tokenizer, which writes
        the texts; `tiny`: two narrow layers in each part.
        """
        found = _published()[self.checkpoint]
        if self.decoder is not None:
            found = with_known_decoder(self.checkpoint, self.decoder)
        config: Any = copy.deepcopy(found)
        if tiny:
            _narrow(config)
        if self.image_size is not None:
            config.vision_config.image_size = 84 if tiny else self.image_size
        text = config.text_config
        text.dropout = text.dropout_rate = 0.0
        text.bos_token_id = text.eos_token_id = EOS_ID
        text.pad_token_id = text.decoder_start_token_id = PAD_ID
        config.image_token_index = VOCABULARY_SIZE - 1
        return config


GEOMETRIES: Mapping[str, Geometry] = {
    "2.7b": Geometry("Salesforce/blip2-opt-2.7b"),
    "6.7b": Geometry("Salesforce/blip2-opt-6.7b"),
    "vicuna-7b": Geometry("Salesforce/instructblip-vicuna-7b", reads_questions=True),
    "flan-t5-xl": Geometry("Salesforce/blip2-flan-t5-xl"),
    "2.7b-364px": Geometry("Salesforce/blip2-opt-2.7b", image_size=364),
    "qwen3-0.6b": Geometry("Salesforce/blip2-opt-2.7b", decoder="Qwen/Qwen3-0.6B"),
}


@functools.cache
def _published() -> dict[str, Blip2Config | InstructBlipConfig]:
    return known_configs()


def _narrow(config: Any) -> None:
    """Two narrow layers in each part, in place."""
    vision, qformer, text = config.vision_config, config.qformer_config, config.text_config
    for part in (vision, qformer):
        part.hidden_size, part.num_attention_heads, part.num_hidden_layers = 32, 4, 2
        part.intermediate_size = 64
    vision.image_size, qformer.encoder_hidden_size = 56, 32
    text.vocab_size = VOCABULARY_SIZE
    if text.model_type == "t5":
        text.d_model, text.d_kv, text.d_ff = 32, 8, 64
        text.num_heads, text.num_layers, text.num_decoder_layers = 4, 2, 2
        return
    text.hidden_size, text.num_attention_heads, text.num_hidden_layers = 32, 4, 2
    if text.model_type == "opt":
        text.ffn_dim, text.word_embed_proj_dim = 64, 32
    else:
        text.intermediate_size, text.head_dim = 64, 8
        text.num_key_value_heads = 2
    if text.model_type == "qwen3":
        text.layer_types = text.layer_types[:2]


def processor_of(config: Blip2Config | InstructBlipConfig) -> Any:
    """Image processor of the model's size, with the tiny tokenizer."""
    processor: Any = tiny_models.processor()
    side_px = config.vision_config.image_size
    processor.image_processor.size = {"height": side_px, "width": side_px}
    processor.num_query_tokens = config.num_query_tokens
    if isinstance(config, InstructBlipConfig):
        return InstructBlipProcessor(
            processor.image_processor,
            processor.tokenizer,
            tiny_models.tokenizer(),
            num_query_tokens=config.num_query_tokens,
        )
    return processor


def write_base(folder: Path, config: Blip2Config | InstructBlipConfig) -> None:
    """A checkpoint's configuration and processor without its weights, under 1 MB."""
    folder.mkdir(parents=True)
    config.architectures = [family_of(config.model_type).model_class]
    config.save_pretrained(folder)
    processor_of(config).save_pretrained(folder)


def model_on(
    place: torch.device, config: Blip2Config | InstructBlipConfig, dtype: torch.dtype
) -> PreTrainedModel:
    """A model of random weights, drawn where it will run."""
    torch.manual_seed(0)
    with place:
        model = model_class(family_of(config.model_type))._from_config(
            config, dtype=dtype, attn_implementation="sdpa"
        )
    # Zeros, as the class has them, make the first LayerNorm's gradients a million times too large.
    nn.init.normal_(model.query_tokens, std=INITIALIZER_RANGE)
    return model.eval()


def write_qvision(folder: Path, *, tiny: bool) -> None:
    """QVision's published layout without its weights: the whole geometry, or narrow layers."""
    text = GPTNeoConfig(hidden_size=1024, num_layers=24, num_heads=16)
    clip, rows = CLIPConfig(), 50_259
    if tiny:
        text = GPTNeoConfig(
            hidden_size=32, num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]]
        )
        narrow = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
        narrow |= {"num_attention_heads": 4}
        clip, rows = CLIPConfig(vision_config=narrow, text_config=narrow), VOCABULARY_SIZE + 2
    clip.save_pretrained(folder / "clip")
    CLIPImageProcessorPil().save_pretrained(folder / "clip")
    text.save_pretrained(folder / "gpt_neo")
    tiny_models.tokenizer().save_pretrained(folder / "gpt_neo")
    fields = {"embed_size": text.hidden_size, "vocab_size": rows, "num_img_tokens": 64}
    (folder / "config.json").write_text(json.dumps(fields))


def write_data(folder: Path, *, images: int, side_px: int, asked: bool) -> Path:
    """Drawn images with five texts each: captions of about COCO's length, or answers."""
    rng = random.Random(0)
    folder.mkdir(parents=True)
    lines = []
    for index in range(images):
        scene = sample_scene(7, index)
        draw(scene, side_px).save(folder / f"{index}.png")
        texts: dict[str, Any]
        if asked:
            pairs = rng.choices(questions(scene), k=TEXTS)
            texts = {
                "questions": [
                    {"question": f"{number}. {question}", "answers": [answer]}
                    for number, (question, answer) in enumerate(pairs)
                ]
            }
        else:
            pool = captions(scene)
            texts = {
                "captions": [
                    " and ".join(rng.choices(pool, k=rng.choice((1, 2)))) for _ in range(TEXTS)
                ]
            }
        lines.append(json.dumps({"image": f"{index}.png", **texts}))
    path = folder / "texts.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path
