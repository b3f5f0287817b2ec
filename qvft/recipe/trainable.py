"""The recipe's `trainable` section: what is frozen, trained in full or by LoRA, per component."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from qvft.recipe.section import Section, Text

Trained = Literal["frozen", "full"]
LORA_PARTS = ("vision", "qformer", "decoder")
WithLora = Literal["frozen", "lora", "full"]

# The discriminator chooses the branch whose errors are reported, with its tag in their key path.
TargetModules = Annotated[
    Annotated[list[Text], Field(min_length=1), Tag("[list]")]
    | Annotated[Literal["all-linear"], Tag("[all]")],
    Discriminator(lambda value: "[all]" if value == "all-linear" else "[list]"),
]


class Lora(Section):
    r: int = Field(16, ge=1, le=65_536, description="Rank.")
    lora_alpha: int = Field(
        32, ge=1, le=1_000_000, description="Scale: lora_alpha / r, or / sqrt(r) with use_rslora."
    )
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the adapters' input.")
    target_modules: TargetModules = Field(
        default_factory=lambda: ["q_proj", "v_proj"],
        description="For decoder: lora. Names of linear layers in the decoder's blocks, as "
        "transformers calls them (q_proj, v_proj, fc1, ...), or all-linear for every one of them, "
        "whatever the decoder. A name that matches none is an error, which lists them.",
    )
    use_dora: bool = Field(False, description="Weight-decomposed LoRA (arXiv 2402.09353).")
    use_rslora: bool = Field(False, description="Rank-stabilised scale (arXiv 2312.03732).")


class Trainable(Section):
    vision: WithLora = Field(
        "frozen",
        description="ViT. lora: on every linear layer of its blocks. If it is trained, features "
        "are not cached.",
    )
    qformer: WithLora = Field(
        "full", description="Q-Former. lora: on every linear layer of its blocks."
    )
    query_tokens: Trained = Field("full", description="Query tokens.")
    language_projection: Trained = Field("full", description="Q-Former to decoder projection.")
    decoder: Literal["lora", "frozen", "full"] = Field("lora", description="Language decoder.")
    frozen_decoder_fraction: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="With decoder: full, share of the decoder's blocks to freeze, the lowest ones, "
        "rounded down to whole blocks. Above 0, position embeddings are frozen too; token "
        "embeddings, tied to the head, and the last norm are trained.",
    )
    decoder_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Dropout of the decoder itself while training, in place of its config's (OPT: "
        "0.1). On a frozen decoder it costs memory. Decoders without such a setting refuse it.",
    )
    lora: Lora = Field(default_factory=Lora)

    @property
    def lora_parts(self) -> tuple[str, ...]:
        """Components with LoRA layers."""
        return tuple(part for part in LORA_PARTS if getattr(self, part) == "lora")
