"""BLIP-2-OPT of real size and random weights, made on the device; images and texts of real size."""

from __future__ import annotations

import copy
import json
import random
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Blip2Config, CLIPConfig, GPTNeoConfig, PreTrainedModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from qvft.models.families import FAMILIES
from qvft.models.load import model_class
from qvft.models.reference_configs import INITIALIZER_RANGE, known_configs

sys.path.append(str(Path(__file__).resolve().parents[2]))  # where tools/ is

from tools.tiny_blip2.drawn import captions, draw, sample_scene, vocabulary_texts
from tools.tiny_blip2.geometry import (
    EOS_ID,
    PAD_ID,
    VOCABULARY_SIZE,
    tiny_processor,
    tiny_tokenizer,
)

sys.path.append(str(Path(__file__).resolve().parents[1] / "fullsize"))
from make_model import opt_processor

GEOMETRIES = ("2.7b", "6.7b")
TEXTS = 5
"""Captions an image, as COCO has."""
ADAPTED = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
"""What recipes/coco_caption.yaml adapts."""


def geometry(name: str, *, tiny: bool) -> Blip2Config:
    """The published configuration of BLIP-2-OPT; `tiny`: two narrow layers in each part."""
    config = copy.deepcopy(known_configs()[f"Salesforce/blip2-opt-{name}"])
    config.text_config.dropout = 0.0
    if tiny:
        for part in (config.vision_config, config.qformer_config, config.text_config):
            part.hidden_size, part.num_attention_heads, part.num_hidden_layers = 32, 4, 2
        config.vision_config.intermediate_size = config.qformer_config.intermediate_size = 64
        config.text_config.ffn_dim = 64
        config.text_config.word_embed_proj_dim = 32
        config.vision_config.image_size = 56
        config.qformer_config.encoder_hidden_size = 32
        config.text_config.vocab_size = VOCABULARY_SIZE
        config.text_config.bos_token_id = config.text_config.eos_token_id = EOS_ID
        config.text_config.pad_token_id = PAD_ID
        config.image_token_index = VOCABULARY_SIZE - 1
    return config


def processor_of(config: Blip2Config) -> Any:
    """One whose vocabulary is the model's."""
    if config.text_config.vocab_size != VOCABULARY_SIZE:
        return opt_processor(config)
    processor = tiny_processor(vocabulary_texts())
    processor.num_query_tokens = config.num_query_tokens
    side_px = config.vision_config.image_size
    processor.image_processor.size = {"height": side_px, "width": side_px}
    return processor


def write_base(folder: Path, config: Blip2Config) -> None:
    """A checkpoint's configuration and processor without its weights, 4 MB."""
    folder.mkdir(parents=True)
    config.architectures = ["Blip2ForConditionalGeneration"]
    config.save_pretrained(folder)
    processor_of(config).save_pretrained(folder)


def model_on(place: torch.device, config: Blip2Config, dtype: torch.dtype) -> PreTrainedModel:
    """A model of random weights, drawn where it will run."""
    torch.manual_seed(0)
    with place:
        model = model_class(FAMILIES["blip2"])._from_config(
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
    tiny_tokenizer(vocabulary_texts()).save_pretrained(folder / "gpt_neo")
    fields = {"embed_size": text.hidden_size, "vocab_size": rows, "num_img_tokens": 64}
    (folder / "config.json").write_text(json.dumps(fields))


def write_data(folder: Path, *, images: int, side_px: int) -> Path:
    """Drawn images with five captions each, of about the length of COCO's."""
    rng = random.Random(0)
    folder.mkdir(parents=True)
    lines = []
    for index in range(images):
        scene = sample_scene(7, index)
        draw(scene, side_px).save(folder / f"{index}.png")
        pool = [*captions(scene)]
        texts = [" and ".join(rng.choices(pool, k=rng.choice((1, 2)))) for _ in range(TEXTS)]
        lines.append(json.dumps({"image": f"{index}.png", "captions": texts}))
    path = folder / "captions.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path
