"""A BLIP-2 of 27,000 weights: heads of the bundled model alone would take 2 MB."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

from transformers import Blip2Config

sys.path.append(str(Path(__file__).resolve().parents[2]))  # where tools/ is

from tools.tiny_blip2 import geometry as tiny
from tools.tiny_blip2.drawn import vocabulary_texts

# Wider weights than the bundled model's, since it is narrower: about 1 / sqrt(width).
SIZES = {
    "WIDTH": 16,
    "VOCABULARY_SIZE": 320,
    "QUERY_TOKENS": 4,
    "TEXT_POSITIONS": 192,
    "INITIALIZER_RANGE": 0.25,
}


def write_small_base(folder: Path) -> None:
    """A model folder with fresh weights, one layer in each part."""
    whole = tiny.tiny_config

    def config() -> Blip2Config:
        config = whole()
        for part in (config.vision_config, config.qformer_config, config.text_config):
            part.num_hidden_layers = 1
        return config

    with mock.patch.multiple(tiny, tiny_config=config, **SIZES):
        tiny.init_tiny(0).save_pretrained(folder)
        tiny.tiny_processor(vocabulary_texts()).save_pretrained(folder)
