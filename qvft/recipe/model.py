"""The recipe's `model` section: checkpoint, family, another decoder, image size, 4-bit weights."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from qvft.recipe.section import PathText, Section, Text


class Quantization(Section):
    load_in_4bit: bool = Field(
        False, description="Quantise the decoder's linear weights to 4 bits (bitsandbytes)."
    )
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = Field("nf4", description="4-bit data type.")
    bnb_4bit_use_double_quant: bool = Field(
        True, description="Quantise the quantisation constants too."
    )

    @property
    def scheme(self) -> str:
        """`none`, or the 4-bit type; manifests, reports and model cards record this one word."""
        return self.bnb_4bit_quant_type if self.load_in_4bit else "none"


class Model(Section):
    id: PathText = Field(description="Hub id or local folder; qvft/tiny-blip2 is bundled.")
    revision: Text | None = Field(None, description="Hub commit, tag or branch.")
    family: Text = Field(
        "auto",
        description="Architecture: blip2, blip2_question (the Q-Former reads the question), "
        "qvision (a vision tower, a Q-Former of its own, a causal decoder), or "
        "package.module.name of your own; auto reads it from the model's config.json.",
    )
    decoder: PathText | None = Field(
        None,
        description="Another decoder: hub id or folder of a causal language model. If `id` is a "
        "BLIP-2 checkpoint, its ViT and Q-Former stay and the language projection starts from "
        "random weights; if it is a CLIP, SigLIP or DINOv2, the two become a qvision whose "
        "Q-Former starts from random weights.",
    )
    decoder_revision: Text | None = Field(
        None, description="Hub commit, tag or branch of `decoder`."
    )
    decoder_type: Text | None = Field(
        None,
        description="Row of a decoder that qvft does not list, package.module.name of your own "
        "(examples/extending); null: config.json says which of the listed ones it is.",
    )
    text_branch: PathText | None = Field(
        None,
        description="Makes a BLIP-2 checkpoint question-aware: initial weights of the Q-Former's "
        "text branch. A BLIP-2 retrieval checkpoint (Salesforce/blip2-itm-vit-g), BERT "
        "(bert-base-uncased), or `fresh` for random weights.",
    )
    query_tokens: int | None = Field(
        None, ge=1, le=100_000, description="Use only the first N query tokens; null: all."
    )
    image_size: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="Side of the images in pixels, a multiple of the ViT's patch size: position "
        "embeddings are interpolated once, when the model is loaded. null: the checkpoint's; of a "
        "DINOv2 its image processor's.",
    )
    init: Literal["pretrained", "random"] = Field(
        "pretrained",
        description="random: same architecture, random weights (pretraining); not with "
        "`text_branch` or `decoder`.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Type of frozen weights; auto: bfloat16 on a GPU, float32 on a CPU. Trainable "
        "weights are float32.",
    )
    attn_implementation: Literal["sdpa", "eager", "flex"] = Field(
        "sdpa",
        description="Attention implementation. flex: flex attention in the decoder while training "
        "(skips blocks of a packed row that do not attend to each other), sdpa elsewhere; GPU and "
        "OPT only.",
    )
    quantization: Quantization = Field(default_factory=Quantization)

    @property
    def kernel(self) -> str:
        """The attention kernel of everything but the decoder while it is trained."""
        return "sdpa" if self.attn_implementation == "flex" else self.attn_implementation
