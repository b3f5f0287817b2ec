"""QVision processor: CLIP's image processor and the decoder's tokenizer in one object.

It is transformers' `CLIPProcessor`, so that a saved folder loads with
`AutoProcessor.from_pretrained`. The image processors need only Pillow.
"""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, AutoTokenizer, CLIPProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from qvft.errors import ModelError
from qvft.models.qvision.start_end_tokens import with_marks

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
    kind = read_part(AutoConfig, vision, revision=vision_revision, trust_remote_code=False)
    if kind.model_type not in IMAGE_PROCESSORS:
        raise ModelError(
            f'model_type "{kind.model_type}"',
            where=vision,
            expected="one of " + ", ".join(IMAGE_PROCESSORS),
        )
    images = read_part(IMAGE_PROCESSORS[kind.model_type], vision, revision=vision_revision)
    return CLIPProcessor(images, marked_tokenizer(decoder, revision=decoder_revision))


def marked_tokenizer(location: str, *, revision: str | None = None, do: str | None = None) -> Any:
    """The tokenizer of a folder or hub id with QVision's start and end tokens, padding on the left.

    Args:
        do: what to do where it is not there.

    Raises:
        ModelError: it is not there.
    """
    # As arguments, since later changes are not saved.
    given = {"padding_side": "left", "add_bos_token": False, "trust_remote_code": False}
    return with_marks(read_part(AutoTokenizer, location, revision=revision, do=do, **given))


def read_part(auto: Any, location: str, *, do: str | None = None, **options: Any) -> Any:
    """Result of `auto.from_pretrained`.

    Args:
        do: what to do where it gives nothing.

    Raises:
        ModelError: it gives nothing.
    """
    try:
        return auto.from_pretrained(location, **options)
    except Exception as error:  # damaged tokenizer files can raise nearly anything
        reason = str(error).strip().split("\n")[0]
        expected = "a complete checkpoint"
        raise ModelError(reason, where=location, expected=expected, do=do) from error
