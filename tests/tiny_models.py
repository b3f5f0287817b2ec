"""Processor and tokenizer of the tiny models: trained once per process, copied for each use."""

from __future__ import annotations

import copy
from functools import cache

from transformers import Blip2Processor, GPT2Tokenizer

from tools.tiny_blip2 import geometry
from tools.tiny_blip2.drawn import vocabulary_texts


@cache
def _processor() -> Blip2Processor:
    return geometry.tiny_processor(vocabulary_texts())


def processor() -> Blip2Processor:
    """The processor of a tiny BLIP-2."""
    return copy.deepcopy(_processor())


def tokenizer() -> GPT2Tokenizer:
    """Its tokenizer: a byte-level BPE of `geometry.VOCABULARY_SIZE` tokens."""
    return copy.deepcopy(_processor().tokenizer)
