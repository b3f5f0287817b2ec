"""Configurations of published BLIP-2 and InstructBLIP models, and of vision towers and decoders of
a QVision, to count parameters without a download; the numbers are in reference_configs.json.

Vocabularies of BLIP-2's decoders hold `<image>` (and LLaMA's `[PAD]`) and are padded to a multiple
of 64; `image_tokens` has its id by the decoder's type, for Qwen3 the first that its tokenizer
leaves free. Those of QVision's have rows for `<START>` and `<END>`. `text_branches` has the words
of each, with BERT's and `[DEC]`. DINOv2 is stored for 518 pixels; its image processor makes 224.

Sources: config.json and preprocessor_config.json of each hub repository; BLIP-2, arXiv 2301.12597,
section 4; InstructBLIP, arXiv 2305.06500, section 2.6; OPT, arXiv 2205.01068, table 1; LLaMA, arXiv
2302.13971, table 2; the sizes of google/flan-t5-xl and -xxl; CLIP, arXiv 2103.00020; SigLIP, arXiv
2303.15343; SigLIP 2, arXiv 2502.14786; DINOv2, arXiv 2304.07193; SmolLM2, arXiv 2502.02737.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, cast

import torch
from transformers import (
    AutoConfig,
    Blip2Config,
    InstructBlipConfig,
    PretrainedConfig,
    PreTrainedModel,
)

from qvft.models.families import family_of
from qvft.models.load import model_class
from qvft.models.question_aware.graft import question_aware_config
from qvft.models.qvision.configuration import QVisionConfig

_KNOWN: dict[str, Any] = json.loads(Path(__file__).with_suffix(".json").read_text("utf-8"))
_QWEN3 = "Qwen/Qwen3-0.6B"
# `Blip2VisionConfig` defaults to 1e-10, which makes a random model ignore the image.
INITIALIZER_RANGE: float = _KNOWN["blip2"]["initializer_range"]


def known_configs() -> dict[str, Blip2Config | InstructBlipConfig]:
    """Configurations by hub id."""
    plain = {name: _blip2(**entry) for name, entry in _KNOWN["blip2_models"].items()}
    reading = {
        name: _question_aware(_blip2(**entry), "bert-base-uncased")
        for name, entry in _KNOWN["instructblip_models"].items()
    }
    return {**plain, **reading}


def with_known_decoder(base: str, decoder: str) -> Blip2Config | None:
    """The geometry of a published BLIP-2 with another published decoder; None for others."""
    known = known_configs().get(base)
    if not isinstance(known, Blip2Config) or decoder != _QWEN3:
        return None
    return _blip2(decoder, image_size=cast(Any, known.vision_config).image_size)


def question_config(base: Blip2Config, text_branch: str) -> InstructBlipConfig | None:
    """The question-aware geometry of a published base and text branch; None for other branches."""
    return _question_aware(base, text_branch) if text_branch in _KNOWN["text_branches"] else None


def reference_qvision(vision: str, decoder: str) -> QVisionConfig | None:
    """The geometry of a QVision of two published checkpoints; None if either is not listed."""
    towers = _KNOWN["qvision_towers"]
    decoders = {**_KNOWN["qvision_decoders"], _QWEN3: _KNOWN["decoders"][_QWEN3]}
    if vision not in towers or decoder not in decoders:
        return None
    tower, text = (AutoConfig.for_model(**one) for one in (towers[vision], decoders[decoder]))
    return QVisionConfig(tower, text, qformer_hidden_size=text.hidden_size)


def meta_model(config: PretrainedConfig) -> PreTrainedModel:
    """The model of a configuration on the meta device: names and shapes without memory."""
    with torch.device("meta"):
        return model_class(family_of(config.model_type))(config)


def _blip2(decoder: str, *, image_size: int = 224) -> Blip2Config:
    known, text = copy.deepcopy(_KNOWN["blip2"]), _KNOWN["decoders"][decoder]
    known["vision_config"]["image_size"] = image_size
    image_token = _KNOWN["image_tokens"][text["model_type"]]
    return Blip2Config(**known, text_config=dict(text), image_token_index=image_token)


def _question_aware(base: Blip2Config, text_branch: str) -> InstructBlipConfig:
    words = _KNOWN["text_branches"][text_branch]
    return question_aware_config(base, word_rows=words, positions=512, pad_id=0)
