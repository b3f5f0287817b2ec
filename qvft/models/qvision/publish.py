"""Writes QVision in its published layout; `published.py` reads it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer

from qvft.errors import ModelError
from qvft.json_files import write_json
from qvft.models.checkpoint_files import load_part
from qvft.models.qvision.configuration import QVisionConfig
from qvft.models.qvision.processing import END, START, add_start_and_end
from qvft.models.qvision.published import HEADS

BLOCKS, FFN_FACTOR = 2, 4


def require_publishable(config: QVisionConfig) -> None:
    """Raises ModelError unless a model fits the published layout, which stores no geometry."""
    found = {
        "encoder": config.vision_config.model_type,
        "decoder": config.text_config.model_type,
        "heads": config.qformer_num_heads,
        "blocks": config.qformer_num_blocks,
        "inner widths": config.qformer_ffn_factor,
    }
    required = dict(zip(found, ("clip", "gpt_neo", HEADS, BLOCKS, FFN_FACTOR), strict=True))
    if found != required:
        different = next(name for name in required if found[name] != required[name])
        raise ModelError(
            f"{different}: {found[different]}",
            where="the published layout of QVision",
            expected=str(required[different]),
            do="qvft.merge writes any QVision as transformers has it",
        )


def write_bases(
    folder: Path,
    config: QVisionConfig,
    processor: Any,
    *,
    gpt_neo: str | None,
    tokenizer: str | None,
) -> None:
    """Writes config.json, and `clip`, `gpt_neo` and `tokenizer`, so that loading needs no hub.

    Args:
        gpt_neo: folder or hub id of the decoder's own configuration and tokenizer; None makes both
            from the model's.
        tokenizer: folder of the tokenizer with start and end tokens; None makes it from the
            decoder's.
    """
    text = config.text_config
    content = {
        "embed_size": config.qformer_hidden_size,
        "vocab_size": text.vocab_size,
        "num_img_tokens": config.num_query_tokens,
    }
    write_json(folder / "config.json", content)
    config.vision_config.save_pretrained(folder / "clip")
    processor.image_processor.save_pretrained(folder / "clip")
    if gpt_neo is None:
        plain, words = copy.deepcopy(text), copy.deepcopy(processor.tokenizer)
        plain.vocab_size = text.vocab_size - 2
        plain.bos_token_id = plain.eos_token_id = text.pad_token_id
    else:
        plain = load_part(AutoConfig, gpt_neo, trust_remote_code=False)
        words = load_part(AutoTokenizer, gpt_neo, trust_remote_code=False)
    plain.save_pretrained(folder / "gpt_neo")
    words.save_pretrained(folder / "gpt_neo")
    add_start_and_end(words)
    if tokenizer is not None:
        words = load_part(AutoTokenizer, tokenizer, trust_remote_code=False)
    words.save_pretrained(folder / "tokenizer")
    _list_added_tokens_as_before(folder / "tokenizer" / "tokenizer_config.json")


def _list_added_tokens_as_before(path: Path) -> None:
    """Names the start and end tokens so that every version of transformers reads them.

    The original runs with transformers 4.56, which takes no list of `extra_special_tokens`;
    transformers 5 writes one, and reads `additional_special_tokens` too.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    content.pop("extra_special_tokens", None)
    content["additional_special_tokens"] = [START, END]
    write_json(path, content)
