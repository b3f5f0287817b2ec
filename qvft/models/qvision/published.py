"""Reads QVision's published layout: three weight files whose base models are stored elsewhere.

`config.json` has `PUBLISHED_FIELDS` and no `model_type`. The weights are in the files of
`COMPONENTS`, some two or three times under different names; `published_weights.py` reads them. CLIP
and GPT-Neo (configuration, image processor, tokenizer) come from the folders `clip`, `gpt_neo` and
`tokenizer` next to the weights, or else from the hub.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from transformers import AutoConfig, CLIPProcessor, PretrainedConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from qvft.errors import ModelError
from qvft.models.checkpoint_files import checkpoint_file, load_part, require_safe_checkpoint
from qvft.models.qvision.configuration import QVisionConfig
from qvft.models.qvision.processing import marked_tokenizer

PUBLISHED_FIELDS = ("embed_size", "vocab_size", "num_img_tokens")
COMPONENTS = ("encoder", "decoder", "gpt_decoder")
CLIP, GPT_NEO = "openai/clip-vit-base-patch32", "xhyi/PT_GPTNEO350_ATG"
_ADVICE = "put it into a folder clip, gpt_neo or tokenizer next to the weights"
PUBLISHED_NEW_TOKENS = 30
"""Maximum number of new tokens of the published generation."""
HEADS = 8
"""Attention heads of the Q-Former, which the layout does not store."""


def is_published(location: str, revision: str | None = None) -> bool:
    """Whether a folder or hub id has the published layout, by its config.json."""
    return _read_fields(location, revision) is not None


def published_config(location: str, revision: str | None = None) -> QVisionConfig:
    """The configuration of a published checkpoint.

    Raises:
        ModelError: CLIP or GPT-Neo is not found, or does not fit config.json.
    """
    fields = _read_fields(location, revision)
    assert fields is not None, "is_published says so"
    clip = _configuration(clip_location(location, revision), "clip")
    text = _configuration(gpt_neo_location(location, revision), "gpt_neo")
    if fields["embed_size"] != text.hidden_size:
        raise ModelError(
            f"embed_size is {fields['embed_size']}, its GPT-Neo is {text.hidden_size} wide",
            where=f"{location}: config.json",
        )
    text.vocab_size = fields["vocab_size"]
    tokenizer = published_tokenizer(location, revision)
    if len(tokenizer) > text.vocab_size:
        raise ModelError(
            f"vocab_size is {text.vocab_size}, its tokenizer has {len(tokenizer)} tokens",
            where=f"{location}: config.json",
        )
    text.bos_token_id = tokenizer.bos_token_id
    text.eos_token_id = tokenizer.eos_token_id
    text.pad_token_id = tokenizer.pad_token_id
    try:
        return QVisionConfig(
            vision_config=clip,
            text_config=text,
            qformer_hidden_size=fields["embed_size"],
            qformer_num_heads=HEADS,
            num_query_tokens=fields["num_img_tokens"],
        )
    except ValueError as error:
        raise ModelError(str(error), where=location) from error


def published_tokenizer(location: str, revision: str | None = None) -> Any:
    """The tokenizer with its start and end tokens, padding on the left; raises ModelError."""
    source = tokenizer_location(location, revision) or gpt_neo_location(location, revision)
    return marked_tokenizer(source, do=_ADVICE)


def published_processor(location: str, revision: str | None = None) -> CLIPProcessor:
    """CLIP's image processor and the tokenizer in one; raises ModelError."""
    images = load_part(CLIPImageProcessorPil, clip_location(location, revision), do=_ADVICE)
    return CLIPProcessor(images, published_tokenizer(location, revision))


def clip_location(location: str, revision: str | None = None) -> str:
    """Folder or hub id with the configuration and the image processor of CLIP."""
    return _subfolder(location, revision, "clip/config.json") or CLIP


def gpt_neo_location(location: str, revision: str | None = None) -> str:
    """Folder or hub id with the configuration and the unchanged tokenizer of GPT-Neo."""
    return _subfolder(location, revision, "gpt_neo/config.json") or GPT_NEO


def tokenizer_location(location: str, revision: str | None = None) -> str | None:
    """Folder of the tokenizer with start and end tokens; None if it must be made from GPT-Neo's."""
    return _subfolder(location, revision, "tokenizer/tokenizer.json")


def published_files(location: str, revision: str | None = None) -> dict[str, Path]:
    """The weight file of each component; downloads those of a hub id; raises ModelError."""
    return {name: published_file(location, name, revision) for name in COMPONENTS}


def published_file(location: str, component: str, revision: str | None = None) -> Path:
    """The weight file of one component; downloads that of a hub id; raises ModelError."""
    path = checkpoint_file(location, f"{component}.safetensors", revision)
    if path is None:
        raise ModelError(
            f"no {component}.safetensors",
            where=location,
            expected=", ".join(f"{name}.safetensors" for name in COMPONENTS),
        )
    return path


def _read_fields(location: str, revision: str | None) -> dict[str, int] | None:
    """Fields of a config.json in the published layout; None for another layout or no file."""
    path = checkpoint_file(location, "config.json", revision)
    if path is None:
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or "model_type" in content:
        return None
    if not all(type(content.get(field)) is int for field in PUBLISHED_FIELDS):
        return None
    return {field: content[field] for field in PUBLISHED_FIELDS}


def _subfolder(location: str, revision: str | None, file: str) -> str | None:
    """Folder of a file in a subfolder next to the weights; None if missing."""
    folder = Path(location)
    if not folder.is_dir():
        try:
            patterns = [f"{name}/*" for name in ("clip", "gpt_neo", "tokenizer")]
            folder = Path(snapshot_download(location, revision=revision, allow_patterns=patterns))
        except (OSError, ValueError):
            return None
    path = folder / file
    return str(path.parent) if path.is_file() else None


def _configuration(source: str, kind: str) -> PretrainedConfig:
    config = load_part(AutoConfig, source, do=_ADVICE, trust_remote_code=False)
    require_safe_checkpoint(config, where=source)
    if config.model_type != kind:
        raise ModelError(f'model_type "{config.model_type}"', where=source, expected=kind)
    return config
