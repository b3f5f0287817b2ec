"""QVision processor: CLIP's image processor and the decoder's tokenizer in one object.

It is transformers' `CLIPProcessor`, so that a saved folder loads with
`AutoProcessor.from_pretrained`. The image processors need only Pillow.
"""

from __future__ import annotations

from typing import Any

from transformers import AddedToken, AutoConfig, AutoTokenizer, CLIPProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from qvft.errors import ModelError
from qvft.models.checkpoint_files import load_part

START, END = "<START>", "<END>"
"""Tokens at the start and end of QVision's texts."""
IMAGE_PROCESSORS = {
    "clip": CLIPImageProcessorPil,
    "clip_vision_model": CLIPImageProcessorPil,
    "siglip": SiglipImageProcessorPil,
    "siglip_vision_model": SiglipImageProcessorPil,
}


def processor_from_components(
    vision: str,
    decoder: str,
    *,
    vision_revision: str | None = None,
    decoder_revision: str | None = None,
) -> CLIPProcessor:
    """The processor of a model from `from_components`.

    Prompts are padded on the left, as generation needs them. GPT-Neo and GPT-2 have no padding
    token; their end token is used for it, so masks must come from lengths.

    Raises:
        ModelError: the image processor or the tokenizer is not found, or the former is not among
            `IMAGE_PROCESSORS`.
    """
    kind = load_part(AutoConfig, vision, revision=vision_revision, trust_remote_code=False)
    if kind.model_type not in IMAGE_PROCESSORS:
        raise ModelError(
            f'model_type "{kind.model_type}"',
            where=vision,
            expected="one of " + ", ".join(IMAGE_PROCESSORS),
        )
    images = load_part(IMAGE_PROCESSORS[kind.model_type], vision, revision=vision_revision)
    return CLIPProcessor(images, marked_tokenizer(decoder, revision=decoder_revision))


def marked_tokenizer(location: str, *, revision: str | None = None, do: str | None = None) -> Any:
    """The tokenizer of a folder or hub id, padding on the left, whose texts begin with `<START>`
    and end with `<END>`.

    Args:
        do: advice if it is not found.

    Raises:
        ModelError: it is not found.
    """
    # As arguments, since later changes are not saved.
    tokenizer = load_part(
        AutoTokenizer,
        location,
        do=do,
        revision=revision,
        padding_side="left",
        add_bos_token=False,
        trust_remote_code=False,
    )
    add_start_and_end(tokenizer)
    tokenizer.bos_token, tokenizer.eos_token = START, END
    return tokenizer


def add_start_and_end(tokenizer: Any) -> Any:
    """Adds `<START>` and `<END>` to a tokenizer, if missing, in place; returns it.

    Without a padding token the end token is used for padding, so masks must come from lengths.
    """
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    added = [AddedToken(token, special=True, normalized=False) for token in (START, END)]
    tokenizer.add_tokens(added, special_tokens=True)
    return tokenizer
