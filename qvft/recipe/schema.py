"""What a recipe may say: every key with its type, default, unit and effect.

The JSON schema for editors and docs/recipe_reference.md are generated from these classes. Nothing
here imports torch: a recipe is checked in milliseconds.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from qvft.recipe.data import LONGEST_NAME, Data, folder_name_problem
from qvft.recipe.objectives import Objectives
from qvft.recipe.section import MOST_SEED, PathText, Section, Text
from qvft.recipe.streaming import require_streamable
from qvft.recipe.train import Train

Trained = Literal["frozen", "full"]


class Run(Section):
    dir: PathText | None = Field(None, description="Run folder; null means runs/NAME.")
    seed: int = Field(
        0, ge=0, le=MOST_SEED, description="Seed of weights, data order and dropout; below 2^32."
    )
    threads: int | None = Field(
        None,
        ge=1,
        le=512,
        description="CPU threads a process; null: the cores divided by the processes "
        "on this host. Without a GPU only: accelerate launch would leave one.",
    )


class Quantize(Section):
    scheme: Literal["none", "nf4", "fp4"] = Field(
        "none", description="4-bit type of the decoder's linear weights (bitsandbytes)."
    )
    double: bool = Field(True, description="Quantise the quantisation constants too.")


class Model(Section):
    id: PathText = Field(description="Hub id or local folder; qvft/tiny-blip2 is bundled.")
    revision: Text | None = Field(None, description="Hub commit, tag or branch.")
    family: Literal["auto", "blip2", "blip2_question", "qvision"] = Field(
        "auto",
        description="Architecture; auto reads it from the model's config.json. blip2_question: "
        "the Q-Former reads the question. qvision: CLIP, a Q-Former of its own, GPT-Neo.",
    )
    decoder: PathText | None = Field(
        None,
        description="qvision from its components: the decoder's checkpoint; id is the vision "
        "model's then, and the Q-Former is fresh.",
    )
    text_branch: PathText | None = Field(
        None,
        description="Makes a BLIP-2 checkpoint question-aware: what its Q-Former reads text with. "
        "A BLIP-2 retrieval checkpoint (Salesforce/blip2-itm-vit-g), BERT (bert-base-uncased), or "
        "fresh.",
    )
    query_tokens: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="Keep only this many query tokens, the first; null keeps all.",
    )
    init: Literal["pretrained", "random"] = Field(
        "pretrained", description="random: the same geometry with fresh weights (pretraining)."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Type of frozen weights; auto: bfloat16 on a GPU, float32 on a CPU. Trained "
        "weights are always float32.",
    )
    attention: Literal["sdpa", "eager", "flex"] = Field(
        "sdpa",
        description="Attention kernel. flex: sdpa, but the decoder is trained with flex attention, "
        "which leaves out blocks of a packed row that do not see each other; on a GPU, for OPT.",
    )
    quantize: Quantize = Field(default_factory=Quantize)

    @property
    def kernel(self) -> str:
        """The attention kernel of everything but the decoder while it is trained."""
        return "sdpa" if self.attention == "flex" else self.attention


class Lora(Section):
    r: int = Field(16, ge=1, le=65_536, description="Rank.")
    alpha: int = Field(
        32, ge=1, le=1_000_000, description="Scale is alpha / r (alpha / sqrt(r) with rslora)."
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the adapters' input.")
    targets: list[Text] = Field(
        default_factory=lambda: ["q_proj", "v_proj"],
        min_length=1,
        description="Names of the decoder's linear layers: q_proj, k_proj, v_proj, out_proj, fc1, "
        "fc2; of GPT-Neo c_fc and c_proj in place of the last two; of GPT-2 c_attn, c_proj, c_fc. "
        "A name that matches none is an error.",
    )
    dora: bool = Field(False, description="Weight-decomposed LoRA (arXiv 2402.09353).")
    rslora: bool = Field(False, description="Rank-stabilised scale (arXiv 2312.03732).")


class Tune(Section):
    vision: Trained = Field("frozen", description="ViT.")
    qformer: Trained = Field("full", description="Q-Former.")
    query_tokens: Trained = Field("full", description="Query tokens.")
    language_projection: Trained = Field("full", description="Q-Former to decoder projection.")
    decoder: Literal["lora", "frozen", "full"] = Field("lora", description="Language decoder.")
    decoder_frozen: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="With decoder: full, this share of the decoder's blocks stays frozen, from the "
        "bottom, rounded down to whole blocks. Above 0 position embeddings stay frozen too; token "
        "embeddings, which the head shares, and the last norm are trained.",
    )
    decoder_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="The decoder's own dropout while training. OPT's checkpoints "
        "say 0.1; on a frozen decoder it costs memory.",
    )
    lora: Lora = Field(default_factory=Lora)


class Phase(Section):
    """A part of training with its own optimizer and schedule; sections override the recipe's."""

    name: str = Field(
        pattern=r"^[a-z0-9_-]+$", max_length=LONGEST_NAME, description="Name of the phase."
    )
    tune: dict[str, Any] = Field(default_factory=dict, description="Keys of tune that differ.")
    train: dict[str, Any] = Field(default_factory=dict, description="Keys of train that differ.")

    @model_validator(mode="before")
    @classmethod
    def _without_objective(cls, content: Any) -> Any:
        """Drops `objective: language`, which locks of 0.1.0 have in each phase."""
        if not isinstance(content, dict) or "objective" not in content:
            return content
        if content["objective"] != "language":
            raise ValueError(
                f"objective {content['objective']} is gone; expected none: the language loss, and "
                "the recipe's objectives"
            )
        return {key: value for key, value in content.items() if key != "objective"}


class Decode(Section):
    max_new_tokens: int = Field(30, ge=1, le=1_000_000, description="Tokens written at most.")
    num_beams: int = Field(1, ge=1, le=1000, description="Beams; 1: greedy.")
    length_penalty: float = Field(
        1.0, ge=-20, le=20, description="Exponent on length in beam search."
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="Any further field of transformers.GenerationConfig."
    )


class Eval(Section):
    batch_size: int = Field(16, ge=1, le=1_000_000, description="Texts decoded together.")
    caption: Decode = Field(default_factory=Decode)
    answer: Decode = Field(default_factory=lambda: Decode(max_new_tokens=10))
    metrics: list[Text] = Field(
        default_factory=lambda: ["auto"], min_length=1, description="Groups of metrics; see docs."
    )
    blind: bool = Field(
        True, description="Score once more with the images shuffled among the texts."
    )
    grid: int = Field(48, ge=0, le=1_000_000, description="Images shown in the report.")
    rerank: int = Field(
        128,
        ge=1,
        le=1_000_000,
        description="Retrieval: best candidates by contrast that matching ranks anew.",
    )
    classes: list[Text] = Field(
        default_factory=list,
        description="With itc: classes among which prompts choose, scored on the texts whose "
        "reference is one of them; empty: not asked.",
    )
    class_prompts: list[Text] = Field(
        default_factory=lambda: ["a photo of a {}"],
        min_length=1,
        description="Prompts of a class, {} where it stands; the mean over them counts.",
    )

    @field_validator("class_prompts")
    @classmethod
    def _prompts_have_a_place(cls, prompts: list[str]) -> list[str]:
        for prompt in prompts:
            if prompt.count("{}") != 1:
                raise ValueError(f"{prompt!r} must contain {{}} once, where the class stands")
        return prompts


class Recipe(Section):
    """A whole recipe, validated; nothing changes it afterwards."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9_.-]+$", max_length=LONGEST_NAME, description="Names the run folder."
    )
    model: Model
    data: Data = Field(default_factory=Data)
    tune: Tune = Field(default_factory=Tune)
    train: Train = Field(default_factory=Train)
    phases: list[Phase] = Field(
        default_factory=list, description="Phases in order; empty: one, as tune and train say."
    )
    objectives: Objectives = Field(
        default_factory=Objectives, description="What is learnt; lm alone by default."
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

    @property
    def run_dir(self) -> str:
        """The run folder, relative to the working folder unless absolute."""
        return self.run.dir or f"runs/{self.name}"
