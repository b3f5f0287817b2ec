"""Puts another decoder behind the ViT and Q-Former of a BLIP-2 checkpoint: `model.decoder`.

The class is transformers' `Blip2ForConditionalGeneration`, unchanged. Vision, Q-Former and query
tokens come from the BLIP-2 checkpoint, decoder and tokenizer from their own; the language
projection is initialised, since the decoder has another width.
"""

from __future__ import annotations

from typing import Any

from transformers import AutoTokenizer, Blip2Config, Blip2ForConditionalGeneration

from qvft.errors import ModelError
from qvft.models.checkpoint_files import load_part
from qvft.models.checkpoint_tensors import Checkpoint, open_checkpoint
from qvft.models.decoders import BLIP2, require_decoder_type
from qvft.models.graft import Graft
from qvft.models.question_aware.question_tokens import highest_id
from qvft.models.qvision.components import COMPUTED_BUFFERS
from qvft.models.weight_origins import Origin, Origins, Shapes, checked_origins, model_shapes

IMAGE_TOKEN = "<image>"
_DECODER, _PROJECTION = "language_model.", "language_projection."


def find_decoder_graft(
    base_id: str,
    decoder: str,
    *,
    base_location: str | None = None,
    revision: str | None = None,
    decoder_revision: str | None = None,
    seed: int = 0,
) -> Graft:
    """Reads configurations, the tokenizer and weight headers, and plans every weight.

    Args:
        base_id: a BLIP-2 checkpoint with any decoder.
        decoder: checkpoint of a causal language model.

    Raises:
        ModelError: a checkpoint, a weight or the tokenizer does not fit.
    """
    base = open_checkpoint(base_id, where="model.id", location=base_location, revision=revision)
    language = open_checkpoint(decoder, where="model.decoder", revision=decoder_revision)
    text: Any = language.config
    if text.is_encoder_decoder or getattr(text, "vocab_size", None) is None:
        raise ModelError(
            f'model_type "{text.model_type}"',
            where=f"model.decoder={decoder}",
            expected="a text-only causal language model",
        )
    tokenizer = tokenizer_with_image(language)
    image_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    rows = max(text.vocab_size, image_id + 1)
    found: Any = base.config
    config = Blip2Config(
        vision_config=found.vision_config.to_dict(),
        qformer_config=found.qformer_config.to_dict(),
        text_config={**text.to_dict(), "vocab_size": rows},
        num_query_tokens=found.num_query_tokens,
        image_text_hidden_size=found.image_text_hidden_size,
        image_token_index=image_id,
        initializer_factor=found.initializer_factor,
        initializer_range=found.initializer_range,
    )
    require_decoder_type(text.model_type, family=BLIP2, where=f"model.decoder={decoder}")
    if getattr(text, "word_embed_proj_dim", text.hidden_size) != text.hidden_size:
        raise ModelError(
            f"its embeddings are {text.word_embed_proj_dim} wide, its blocks {text.hidden_size}",
            where=f"model.decoder={decoder}",
            expected="one width: BLIP-2 projects the image to the blocks' width",
        )
    shapes, tied = model_shapes(Blip2ForConditionalGeneration, config)
    origins = _plan(
        shapes, tied, base=base.shapes, decoder=language.shapes, rows=(text.vocab_size, rows)
    )
    return Graft({"base": base, "decoder": language}, config, origins, tokenizer, seed)


def tokenizer_with_image(decoder: Checkpoint) -> Any:
    """The tokenizer of a decoder with `<image>` as a special token.

    Raises:
        ModelError: there is none, it has more tokens than the decoder has embeddings, or `<image>`
            does not become one token.
    """
    where = f"model.decoder={decoder.id}"
    tokenizer = load_part(
        AutoTokenizer,
        decoder.location,
        where=where,
        expected="a checkpoint with its tokenizer",
        revision=decoder.revision,
        trust_remote_code=False,
    )
    rows = decoder.config.vocab_size
    if highest_id(tokenizer) >= rows:
        raise ModelError(
            f"its tokenizer has {highest_id(tokenizer) + 1} tokens, its embedding {rows} rows",
            where=where,
            expected="the tokenizer that the decoder was trained with",
        )
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
    ids = tokenizer(IMAGE_TOKEN, add_special_tokens=False)["input_ids"]
    if ids != [tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)] or ids == [tokenizer.unk_token_id]:
        raise ModelError(
            f"its tokenizer writes {IMAGE_TOKEN} as {len(ids)} tokens after it was added",
            where=where,
            expected="a tokenizer with room for one more special token",
        )
    return tokenizer


def _plan(
    target: Shapes, tied: dict[str, str], *, base: Shapes, decoder: Shapes, rows: tuple[int, int]
) -> Origins:
    """The source of every weight; `rows` are the embedding's in the checkpoint and in the model."""

    def stored(key: str) -> str:
        """A key of the decoder as its checkpoint has it: with the base model's prefix or not."""
        name = key.removeprefix(_DECODER)
        return name if name in decoder else name.partition(".")[2]

    def origin(key: str, shape: tuple[int, ...]) -> Origin:
        if key in tied:
            return Origin("tied", tied[key], shape)
        if key.startswith(_PROJECTION):
            return Origin("fresh", "", shape, fresh_rows=shape[0])
        if not key.startswith(_DECODER):
            return Origin("base", key, shape)
        names = [key, *(twin for twin, owner in tied.items() if owner == key)]
        name = next((found for found in map(stored, names) if found in decoder), None)
        if name is None:
            return Origin("decoder", key.removeprefix(_DECODER), shape)
        stored_rows = decoder[name][0]
        is_embedding = (stored_rows, shape[0]) == rows
        new_rows = shape[0] - stored_rows if is_embedding else 0
        return Origin("decoder", name, shape, fresh_rows=new_rows)

    def reason(source: str, key: str) -> str | None:
        if source == "base" and key.startswith(_DECODER):
            return "replaced by the new decoder"
        if source == "base" and key.startswith(_PROJECTION):
            return "initialised for the width of the new decoder"
        if source == "decoder" and COMPUTED_BUFFERS.search(key):
            return "a buffer that is computed"
        return None

    weights = {key: origin(key, shape) for key, shape in target.items()}
    return checked_origins(
        weights,
        {"base": base, "decoder": decoder},
        reason,
        twins={
            ("decoder", stored(key)): weights[owner].key
            for key, owner in tied.items()
            if weights[owner].key != stored(key)
        },
        where="model.id with model.decoder",
        expected="a complete BLIP-2 checkpoint, and a complete causal language model",
    )
