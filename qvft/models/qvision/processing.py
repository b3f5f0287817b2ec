"""QVision processor: the vision tower's image processor and the decoder's tokenizer in one object.

It is transformers' `CLIPProcessor`, so that a saved folder loads with
`AutoProcessor.from_pretrained`. The image processors need only Pillow.
"""

from __future__ import annotations

import copy
from typing import Any

from transformers import AddedToken, AutoConfig, AutoTokenizer, CLIPProcessor
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
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
    "dinov2": BitImageProcessorPil,
    "dinov2_with_registers": BitImageProcessorPil,
}
"""Class of the image processor of each tower in `VISION_TYPES`."""


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
    """
    config = load_part(AutoConfig, vision, revision=vision_revision, trust_remote_code=False)
    images = _image_processor(vision, config.model_type, vision_revision)
    return CLIPProcessor(images, marked_tokenizer(decoder, revision=decoder_revision))


def require_tower(model_type: str, *, where: str) -> None:
    """Raises ModelError if QVision has no vision tower of this type."""
    if model_type in IMAGE_PROCESSORS:
        return
    expected = "a vision tower of type " + ", ".join(IMAGE_PROCESSORS)
    do = None
    if model_type.startswith("siglip2"):
        expected += "; NaFlex, a SigLIP 2 of variable image size, is not supported"
        do = "take a SigLIP 2 of one image size, e.g. google/siglip2-base-patch16-224"
    raise ModelError(f'model_type "{model_type}"', where=where, expected=expected, do=do)


def default_image_size(vision: str, model_type: str, revision: str | None = None) -> int | None:
    """Pixels per side of a vision model's images, where its config.json does not decide it; else
    None.

    A DINOv2 takes images of any size. Its config.json has the size that its position embeddings are
    stored for, 518, its image processor makes 224.

    Raises:
        ModelError: there is no image processor, or its images are not square.
    """
    if not model_type.startswith("dinov2"):
        return None
    images = _image_processor(vision, model_type, revision)
    size = images.crop_size if images.do_center_crop else images.size
    if not size.height or size.height != size.width:
        raise ModelError(
            f"its image processor makes images of {dict(size)}",
            where=vision,
            expected="a height and an equal width in preprocessor_config.json",
        )
    return int(size.height)


def _image_processor(vision: str, model_type: str, revision: str | None) -> Any:
    require_tower(model_type, where=vision)
    return load_part(IMAGE_PROCESSORS[model_type], vision, revision=revision)


def plain_pixels(image_processor: Any) -> Any:
    """A copy of an image processor that resizes without keeping the aspect ratio and does not
    normalise (values 0 to 1).

    Source: the notebook published with QVision, which leaves out CLIP's normalisation, cropping and
    resizing of the shorter side; its training has them.
    """
    plain = copy.deepcopy(image_processor)
    size = getattr(plain, "crop_size", None) or plain.size
    plain.size = type(plain.size)(height=size["height"], width=size["width"])
    plain.do_center_crop = False
    plain.do_normalize = False
    return plain


def marked_tokenizer(location: str, *, revision: str | None = None, do: str | None = None) -> Any:
    """The tokenizer of a folder or hub id, padding on the left, whose texts begin with `<START>`
    and end with `<END>`.
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
