"""QVision's processor: the tower's image processor and the decoder's tokenizer in one object.

It is transformers' `CLIPProcessor`, which takes any of both, so that a saved folder loads with
`AutoProcessor.from_pretrained` everywhere. The image processors are those that need Pillow alone.
"""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, AutoTokenizer, CLIPProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from qvft.errors import ModelError

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
    """The processor of a model that `from_components` makes of the same two.

    Prompts are padded on the left, as generation needs them. GPT-Neo and GPT-2 have no padding
    token; their end token stands in for it, so masks have to come from lengths.

    Raises:
        ModelError: the image processor or the tokenizer is not there, or the first is of a model
            that is not among `IMAGE_PROCESSORS`.
    """
    kind = _read(AutoConfig, vision, vision_revision, trust_remote_code=False).model_type
    if kind not in IMAGE_PROCESSORS:
        raise ModelError(
            f'model_type "{kind}"', where=vision, expected="one of " + ", ".join(IMAGE_PROCESSORS)
        )
    images = _read(IMAGE_PROCESSORS[kind], vision, vision_revision)
    # As an argument: a side that is set later is not saved.
    tokenizer = _read(
        AutoTokenizer, decoder, decoder_revision, padding_side="left", trust_remote_code=False
    )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return CLIPProcessor(images, tokenizer)


def _read(auto: Any, model_id: str, revision: str | None, **options: Any) -> Any:
    try:
        return auto.from_pretrained(model_id, revision=revision, **options)
    except Exception as error:  # damaged files make tokenizers raise nearly anything
        reason = str(error).strip().split("\n")[0]
        raise ModelError(reason, where=model_id, expected="a complete checkpoint") from error
