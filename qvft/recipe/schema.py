"""The recipe schema: all keys (hyperparameters, data, model) with type, default, unit and effect.

The JSON schema for editors and docs/recipe_reference.md are generated from these classes. Nothing
here imports torch: a recipe is checked in milliseconds.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from qvft.recipe.data import LONGEST_NAME, Data, Source, folder_name_problem
from qvft.recipe.objectives import Objectives
from qvft.recipe.preference import Preference
from qvft.recipe.reward import Reward
from qvft.recipe.rewardable import require_rewardable
from qvft.recipe.section import MOST_SEED, PathText, Section, Text
from qvft.recipe.streaming import require_streamable
from qvft.recipe.train import Train

Trained = Literal["frozen", "full"]
LORA_PARTS = ("vision", "qformer", "decoder")
WithLora = Literal["frozen", "lora", "full"]


class Run(Section):
    dir: PathText | None = Field(None, description="Run folder; null means runs/NAME.")
    seed: int = Field(
        0, ge=0, le=MOST_SEED, description="Seed of initial weights, data order and dropout."
    )
    threads: int | None = Field(
        None,
        ge=1,
        le=512,
        description="CPU threads per process, used without a GPU; null: the cores divided by the "
        "processes on this host.",
    )


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
        None,
        ge=1,
        le=100_000,
        description="Use only the first N query tokens; null: all.",
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


class Phase(Section):
    """One phase of training, with its own optimizer and schedule, and what it overrides."""

    name: str = Field(
        pattern=r"^[a-z0-9_-]+$", max_length=LONGEST_NAME, description="Name of the phase."
    )
    objective: Literal["language", "preference", "reward"] = Field(
        "language",
        description="What the phase learns from. language: the texts, by the losses of "
        "`objectives`. preference: pairs of a chosen and a rejected text, as `preference` says. "
        "reward: samples of the model's own, as `reward` says.",
    )
    trainable: dict[str, Any] = Field(
        default_factory=dict, description="Keys of `trainable` to override."
    )
    train: dict[str, Any] = Field(default_factory=dict, description="Keys of `train` to override.")

    @field_validator("train")
    @classmethod
    def _starts_nowhere(cls, train: dict[str, Any]) -> dict[str, Any]:
        if "from" in train:
            raise ValueError(
                "from: a phase begins with the weights of the one before it; set train.from, which "
                "holds for the run"
            )
        return train


class Decode(Section):
    max_new_tokens: int = Field(
        30, ge=1, le=1_000_000, description="Maximum number of generated tokens."
    )
    num_beams: int = Field(1, ge=1, le=1000, description="Number of beams; 1: greedy decoding.")
    length_penalty: float = Field(1.0, ge=-20, le=20, description="Length penalty of beam search.")
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="Any further field of transformers.GenerationConfig."
    )


class Eval(Section):
    batch_size: int = Field(
        16, ge=1, le=1_000_000, description="Batch size of generation, in texts."
    )
    caption: Decode = Field(default_factory=Decode)
    answer: Decode = Field(default_factory=lambda: Decode(max_new_tokens=10))
    metrics: list[Text] = Field(
        default_factory=lambda: ["auto"],
        min_length=1,
        description="Metrics by name, or package.module.name of your own; see docs/evaluation.md.",
    )
    blind: bool = Field(
        True, description="Also score with images shuffled among the texts (image-blind baseline)."
    )
    retention: list[Source] = Field(
        default_factory=list,
        description="Other data than the domain's. `qvft eval RUN` scores run and base on each and "
        "reports the paired difference: what fine-tuning forgot.",
    )
    report_images: int = Field(
        48, ge=0, le=1_000_000, description="Maximum number of images in the report."
    )
    rerank: int = Field(
        128,
        ge=1,
        le=1_000_000,
        description="Retrieval: number of top candidates by ITC that ITM reranks.",
    )
    classes: list[Text] = Field(
        default_factory=list,
        description="Zero-shot classification with itc: class names, scored on the texts whose "
        "reference is one of them; empty: no classification.",
    )
    class_prompts: list[Text] = Field(
        default_factory=lambda: ["a photo of a {}"],
        min_length=1,
        description="Prompt templates with {} for the class name; their embeddings are averaged.",
    )

    @field_validator("class_prompts")
    @classmethod
    def _prompts_have_a_place(cls, prompts: list[str]) -> list[str]:
        for prompt in prompts:
            if prompt.count("{}") != 1:
                raise ValueError(f"{prompt!r} must contain {{}} once, for the class name")
        return prompts


class Recipe(Section):
    """A whole recipe, validated; nothing changes it afterwards."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9_.-]+$",
        max_length=LONGEST_NAME,
        description="Name of the run and its folder.",
    )
    model: Model
    data: Data = Field(default_factory=Data)
    trainable: Trainable = Field(default_factory=Trainable)
    train: Train = Field(default_factory=Train)
    phases: list[Phase] = Field(
        default_factory=list, description="Phases in order; empty: one, as trainable and train say."
    )
    objectives: Objectives = Field(
        default_factory=Objectives,
        description="Training losses; the language loss alone by default.",
    )
    preference: Preference = Field(
        default_factory=Preference,
        description="Losses of phases with objective: preference; names and defaults are those of "
        "trl's DPOConfig, see docs/preference.md.",
    )
    reward: Reward = Field(
        default_factory=Reward,
        description="Samples and losses of phases with objective: reward; names and defaults are "
        "those of trl's RLOOConfig and GRPOConfig, see docs/reward.md.",
    )
    eval: Eval = Field(default_factory=Eval)
    run: Run = Field(default_factory=Run)

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if problem := folder_name_problem(name):
            raise ValueError(f"{name!r} {problem}; the run folder is called after it")
        return name

    @model_validator(mode="after")
    def _streamed_data_fits(self) -> Recipe:
        require_streamable(self)
        return self

    @model_validator(mode="after")
    def _evaluation_has_data(self) -> Recipe:
        if self.train.eval_steps is not None and self.data.eval is None:
            raise ValueError("train.eval_steps needs data.eval")
        return self

    @model_validator(mode="after")
    def _reward_has_functions(self) -> Recipe:
        require_rewardable(self)
        return self

    @classmethod
    def load(cls, path: str | os.PathLike[str], /, **overrides: Any) -> Recipe:
        """Reads a YAML file, lays overrides over it and checks every key.

        Args:
            path: e.g. `recipes/custom_jsonl.yaml`.
            overrides: values by key path, e.g. `**{"train.epochs": 1}`.

        Raises:
            RecipeError: no such file, or an unknown or ill-typed key.
        """
        from qvft.recipe.load import load_recipe
        from qvft.recipe.overrides import override_texts

        return load_recipe(os.fspath(path), override_texts(overrides))

    @property
    def run_dir(self) -> str:
        """The run folder, relative to the working folder unless absolute."""
        return self.run.dir or f"runs/{self.name}"
