"""Table of language decoders: what differs between OPT, Llama, Qwen, Mistral, Gemma, GPT and T5.

To add a decoder, add a row here or call `register_decoder`; everything else comes from
transformers' class and from the tokenizer (its `bos` token, if any, begins the text).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from qvft.dotted_names import import_dotted
from qvft.errors import ModelError, RecipeError

BLIP2, QVISION = "blip2", "qvision"


@dataclass(frozen=True)
class Decoder:
    """A type of language decoder.

    Attributes:
        model_type: in `text_config` of a model's config.json.
        layers: prefix of its blocks' parameters, from the model's root.
        stop_text: end of training targets and stop string of generation; empty: the tokenizer's end
            token.
        dropout: key of its config that `trainable.decoder_dropout` sets; None: not supported.
        learned_positions: whether it has learned position embeddings.
        local_window: key of its config with the window of local attention that it masks by column
            whatever mask it is given: rows with visual tokens may be no longer, and packed rows
            share no prefix. (`sliding_window` is a part of the mask, and a limit in any case.)
        encoder_layers: prefix of its encoder's blocks, if it is an encoder-decoder: the encoder
            reads image and prompt, the decoder writes the target.
        lean_bytes, dropout_bytes: activation bytes per token, block and unit of width when training
            in bfloat16 with LoRA, without and with dropout; for the memory estimate.
        families: model families that it is used in; QVision takes any causal decoder.
        title: name in tables.
    """

    model_type: str
    layers: str
    stop_text: str = ""
    dropout: str | None = None
    learned_positions: bool = False
    local_window: str | None = None
    encoder_layers: str | None = None
    lean_bytes: float = 24.2
    dropout_bytes: float = 96.2
    families: tuple[str, ...] = (BLIP2, QVISION)
    title: str = ""

    @property
    def blocks(self) -> tuple[str, ...]:
        """Prefixes of all its blocks: those of an encoder first."""
        return (self.layers,) if self.encoder_layers is None else (self.encoder_layers, self.layers)


def _llama_like(model_type: str, title: str, *, lean_bytes: float, dropout_bytes: float) -> Decoder:
    """A decoder whose blocks are where Llama has them."""
    return Decoder(
        model_type,
        "language_model.model.layers",
        lean_bytes=lean_bytes,
        dropout_bytes=dropout_bytes,
        title=title,
    )


_FIELDS = tuple(field.name for field in fields(Decoder))

DECODERS: dict[str, Decoder] = {
    decoder.model_type: decoder
    for decoder in (
        # BLIP-2's OPT decoders were trained to end with a newline, not with `</s>`.
        # Source: LAVIS, lavis/models/blip2_models/blip2_opt.py, `eos_token_id`.
        # Bytes measured on OPT-2.7B (32 blocks, width 2560): 1.98 MB per token without dropout;
        # OPT's own dropout together with dropout on float32 adapters takes 7.88 MB.
        Decoder(
            "opt",
            "language_model.model.decoder.layers",
            stop_text="\n",
            dropout="dropout",
            learned_positions=True,
            title="OPT decoder",
        ),
        # Bytes counted from the tensors that autograd saves of Llama-3-8B's and Qwen2-7B's blocks
        # (the same count gives OPT's measured figure); with dropout not measured: OPT's ratio of 4.
        # Those of Qwen3 (0.6B), Gemma (2B), Gemma 2 (2B) and Gemma 3 (1B) are counted in blocks
        # under CPU autocast, as a multiple of what Llama-3-8B's takes there.
        _llama_like("llama", "Llama decoder", lean_bytes=38.2, dropout_bytes=153.0),
        _llama_like("qwen2", "Qwen2 decoder", lean_bytes=48.6, dropout_bytes=194.0),
        _llama_like("qwen3", "Qwen3 decoder", lean_bytes=49.1, dropout_bytes=196.0),
        _llama_like("mistral", "Mistral decoder", lean_bytes=38.2, dropout_bytes=153.0),
        _llama_like("gemma", "Gemma decoder", lean_bytes=62.6, dropout_bytes=250.0),
        _llama_like("gemma2", "Gemma 2 decoder", lean_bytes=47.0, dropout_bytes=188.0),
        _llama_like("gemma3_text", "Gemma 3 decoder", lean_bytes=59.0, dropout_bytes=236.0),
        Decoder(
            "gpt_neo",
            "language_model.transformer.h",
            learned_positions=True,
            local_window="window_size",
            title="GPT-Neo decoder",
        ),
        Decoder(
            "gpt2", "language_model.transformer.h", learned_positions=True, title="GPT-2 decoder"
        ),
        # Bytes counted in a block of Flan-T5-XL's decoder as those of Qwen3 above, for a token of
        # prompt or target; one of the encoder takes three quarters of them.
        Decoder(
            "t5",
            "language_model.decoder.block",
            dropout="dropout_rate",
            encoder_layers="language_model.encoder.block",
            lean_bytes=61.7,
            dropout_bytes=247.0,
            families=(BLIP2,),
            title="T5",
        ),
    )
}


def register_decoder(decoder: Decoder) -> Decoder:
    """Adds a decoder type; returns it. Raises ValueError if its model type is in the table."""
    if DECODERS.get(decoder.model_type, decoder) is not decoder:
        raise ValueError(f"there is a decoder of type {decoder.model_type!r} already")
    DECODERS[decoder.model_type] = decoder
    return decoder


def add_decoder(name: str | None) -> None:
    """Adds the decoder that `model.decoder_type` names as `package.module.name`; None adds nothing.

    Raises:
        RecipeError: it is not a `Decoder`, or its type is already in the table.
    """
    if name is None:
        return
    decoder = import_dotted(name, Decoder, where="model.decoder_type")
    try:
        register_decoder(decoder)
    except ValueError as error:
        raise RecipeError(f'"{name}": {error}', where="model.decoder_type") from error


def decoder_of(config: Any) -> Decoder:
    """The decoder type of a model with this configuration, in the table as checked before."""
    return DECODERS[config.text_config.model_type]


def require_decoder_type(model_type: str, *, family: str, where: str) -> None:
    """Raises ModelError unless a type of decoder is in the table, for this family."""
    known = [name for name, decoder in DECODERS.items() if family in decoder.families]
    if model_type not in known:
        raise ModelError(
            f"its decoder is {model_type}",
            where=where,
            expected=f"a decoder of type {', '.join(known)}",
            do=f"name a row of your own in model.decoder_type: Decoder({', '.join(_FIELDS)})",
        )


def is_encoder_decoder(config: Any) -> bool:
    """Whether an encoder reads image and prompt, and the decoder writes only the target (T5)."""
    return decoder_of(config).encoder_layers is not None


def start_token(config: Any) -> int | None:
    """The token that begins an encoder-decoder's text, None in other models. Raises ModelError."""
    if not is_encoder_decoder(config):
        return None
    found: int | None = getattr(config.text_config, "decoder_start_token_id", None)
    if found is None:
        raise ModelError(
            "text_config names no decoder_start_token_id",
            where="config.json",
            expected="the token that begins its decoder's text (T5: 0, the padding token)",
        )
    return found


def longest_row(config: Any, *, visual: bool, padding: int) -> int | None:
    """Maximum number of positions of a row and what is generated after it; None: no limit.

    In a row no longer than its window, sliding-window attention is plain attention.

    Args:
        visual: whether rows begin with visual tokens.
        padding: columns inside a row that generation may add, which windows count.
    """
    text = config.text_config
    keys = ["sliding_window", *([decoder_of(config).local_window] if visual else [])]
    windows = [getattr(text, key, None) for key in keys if key is not None]
    limits = [window - padding for window in windows if window is not None]
    positions = getattr(text, "max_position_embeddings", None)
    return min(limits if positions is None else [*limits, positions], default=None)


def set_dropout(config: Any, share: float) -> None:
    """Sets the decoder's dropout in a configuration; raises RecipeError if it has none."""
    decoder = decoder_of(config)
    if decoder.dropout is not None:
        setattr(config.text_config, decoder.dropout, share)
    elif share > 0:
        raise RecipeError(
            f"{share} with a decoder of type {decoder.model_type}",
            where="trainable.decoder_dropout",
            expected="0: it has no dropout that can be set",
            do="set trainable.lora.lora_dropout, or leave it at 0",
        )
