"""What a recipe may say: every key with its type, default, unit and effect.

The JSON schema for editors and docs/recipe_reference.md are generated from these classes. Nothing
here imports torch: a recipe is checked in milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Trained = Literal["frozen", "full"]


class Section(BaseModel):
    """A frozen, strictly typed part of a recipe; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Run(Section):
    dir: str | None = Field(None, description="Run folder; null means runs/NAME.")
    seed: int = Field(0, ge=0, description="Seed of weights, data order and dropout.")
    threads: int | None = Field(
        None,
        ge=1,
        description="CPU threads a process; null: the cores divided by the processes "
        "on this host. Without a GPU only: accelerate launch would leave one.",
    )


class Quantize(Section):
    scheme: Literal["none", "nf4", "fp4"] = Field(
        "none", description="4-bit type of the decoder's linear weights (bitsandbytes)."
    )
    double: bool = Field(True, description="Quantise the quantisation constants too.")


class Model(Section):
    id: str = Field(description="Hub id or local folder; qvft/tiny-blip2 is bundled.")
    revision: str | None = Field(None, description="Hub commit, tag or branch.")
    family: Literal["auto", "blip2", "blip2_question", "qvision"] = Field(
        "auto",
        description="Architecture; auto reads it from the model's config.json. blip2_question: "
        "the Q-Former reads the question. qvision: CLIP, a Q-Former of its own, GPT-Neo.",
    )
    decoder: str | None = Field(
        None,
        description="qvision from its components: the decoder's checkpoint; id is the vision "
        "model's then, and the Q-Former is fresh.",
    )
    text_branch: str | None = Field(
        None,
        description="Makes a BLIP-2 checkpoint question-aware: what its Q-Former reads text with. "
        "A BLIP-2 retrieval checkpoint (Salesforce/blip2-itm-vit-g), BERT (bert-base-uncased), or "
        "fresh.",
    )
    query_tokens: int | None = Field(
        None, ge=1, description="Keep only this many query tokens, the first; null keeps all."
    )
    init: Literal["pretrained", "random"] = Field(
        "pretrained", description="random: the same geometry with fresh weights (pretraining)."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Type of frozen weights; auto: bfloat16 on a GPU, float32 on a CPU. Trained "
        "weights are always float32.",
    )
    attention: Literal["sdpa", "eager"] = Field("sdpa", description="Attention kernel.")
    quantize: Quantize = Field(default_factory=Quantize)


class Source(Section):
    format: str = Field("jsonl", description="Name of a format; see docs/formats.md.")
    path: str | None = Field(None, description="File or folder the format reads.")
    name: str | None = Field(None, description="What reports call it; null: from the path.")
    split: str | None = Field(None, description="Which split, where the format has several.")
    images: str | None = Field(None, description="Image folder, where it lies apart.")
    allow_outside: bool = Field(
        False,
        description="Images may lie outside the image folder (that of path, or images): rows with "
        "../, absolute paths, links that lead elsewhere. For data you trust.",
    )
    questions: str | None = Field(None, description="VQA v2: question file, where it lies apart.")
    annotations: str | None = Field(
        None, description="VQA v2: annotation file, where it lies apart."
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="Column names of a Hugging Face dataset."
    )
    limit: int | None = Field(None, ge=1, description="Read this many images only.")
    texts: Literal["all", "captions", "questions"] = Field(
        "all", description="Which texts of the images to use."
    )


class Prompt(Section):
    caption: str = Field("", description="Text before a caption; no loss on it.")
    question: str = Field(
        "Question: {question} Answer:",
        description="Text before an answer, with {question}; no loss on it.",
    )

    @model_validator(mode="after")
    def _question_is_asked(self) -> Prompt:
        if "{question}" not in self.question:
            raise ValueError("question must contain {question}")
        return self


class Data(Section):
    train: Source | None = Field(None, description="What is trained on.")
    eval: Source | None = Field(None, description="What is evaluated on; never trained on.")
    prompt: Prompt = Field(default_factory=Prompt)
    max_text_tokens: int = Field(
        128,
        ge=8,
        description="Prompt and target tokens a row may have; longer prompts are cut "
        "from the left, targets at the end, and both are counted.",
    )
    on_bad_image: Literal["error", "skip"] = Field(
        "error", description="A missing or broken image: stop, or leave it out, counted and listed."
    )
    max_image_pixels: int = Field(
        64_000_000,
        ge=1,
        description="Larger images are refused as decompression bombs, and so "
        "are files of more than 8 bytes for each of these pixels and 16 MiB.",
    )
    workers: int = Field(2, ge=0, description="Processes that decode images.")
    features: Literal["auto", "off"] = Field(
        "auto",
        description="auto: what a frozen ViT makes of an image is computed once and kept on the "
        "disk, for all runs and evaluations ($QVFT_CACHE, or ~/.cache/qvft/features).",
    )
    features_dtype: Literal["auto", "float32", "bfloat16", "int8"] = Field(
        "auto",
        description="What features are kept in. auto: what the ViT computes in, exactly. int8 "
        "takes half of bfloat16's room and rounds; see docs/features.md.",
    )
    features_limit_gb: float = Field(
        100.0,
        gt=0,
        description="Features of a recipe's images may take this much, in 10^9 bytes; above it, or "
        "where the disk has less, the ViT runs in every step.",
    )
    cache_images: bool = Field(
        False,
        description="Keep normalised images in memory, 12 bytes a pixel at the model's size: "
        "for small data trained on for several epochs. Needs workers: 0.",
    )

    @model_validator(mode="after")
    def _cache_is_in_this_process(self) -> Data:
        if self.cache_images and self.workers:
            raise ValueError("cache_images needs workers: 0, since workers share no memory")
        return self


class Lora(Section):
    r: int = Field(16, ge=1, description="Rank.")
    alpha: int = Field(32, ge=1, description="Scale is alpha / r (alpha / sqrt(r) with rslora).")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the adapters' input.")
    targets: list[str] = Field(
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
        description="With decoder: full, this share of the decoder's weights stays frozen, counted "
        "from the embeddings up, in whole blocks. Above 0 of what lies outside the blocks only "
        "the token embeddings are trained.",
    )
    decoder_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="The decoder's own dropout while training. OPT's checkpoints "
        "say 0.1; on a frozen decoder it costs memory.",
    )
    lora: Lora = Field(default_factory=Lora)


class LearningRates(Section):
    vision: float = Field(1e-5, ge=0, description="ViT.")
    qformer: float = Field(1e-5, ge=0, description="Q-Former.")
    query_tokens: float = Field(1e-5, ge=0, description="Query tokens.")
    language_projection: float = Field(1e-5, ge=0, description="Language projection.")
    decoder: float = Field(1e-5, ge=0, description="Decoder weights trained in full.")
    adapters: float = Field(1e-4, ge=0, description="LoRA weights.")
    heads: float = Field(1e-3, ge=0, description="Heads of an auxiliary objective.")


class Train(Section):
    epochs: float = Field(1.0, gt=0, description="Passes over the texts.")
    max_steps: int = Field(-1, ge=-1, description="Optimizer steps; -1: what epochs come to.")
    batch_size: int = Field(8, ge=1, description="Texts a device and step.")
    texts_per_image: int = Field(
        1,
        ge=1,
        description="Texts of an image kept together in a batch; it is encoded once for them.",
    )
    packing: bool = Field(
        True,
        description="Lay texts side by side instead of padding each to the longest, with what an "
        "image's texts begin with there once. The gradients are the same.",
    )
    accumulation: int = Field(1, ge=1, description="Batches summed before an optimizer step.")
    lr: LearningRates = Field(default_factory=LearningRates)
    weight_decay: float = Field(0.05, ge=0, description="AdamW; not on biases and norms.")
    betas: list[float] = Field(
        default_factory=lambda: [0.9, 0.999],
        min_length=2,
        max_length=2,
        description="AdamW's decay rates.",
    )
    clip: float = Field(1.0, ge=0, description="Largest gradient norm; 0: no clipping.")
    warmup: float = Field(0.03, ge=0, description="Steps, or below 1 a share of all steps.")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="Learning rates after the warm-up; cosine and linear end at zero."
    )
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="Autocast; auto: bf16 where a GPU has it, otherwise fp32."
    )
    checkpointing: bool = Field(False, description="Recompute activations; less memory, slower.")
    eval_steps: int | None = Field(None, ge=1, description="Evaluate the loss every N steps.")
    save_steps: int | None = Field(None, ge=1, description="Checkpoint every N steps.")
    keep: int = Field(2, ge=1, description="Checkpoints kept, the best one among them.")
    keep_best: bool = Field(
        False, description="End with the checkpoint of the lowest eval loss; needs eval_steps."
    )
    early_stopping: int | None = Field(
        None, ge=1, description="Stop after N evaluations without a lower loss; needs keep_best."
    )
    log_steps: int = Field(10, ge=1, description="Log the loss every N steps.")
    report_to: list[str] = Field(
        default_factory=list, description="Trackers the HF Trainer knows: tensorboard, wandb, ..."
    )
    resume: Literal["never", "auto"] = Field(
        "never", description="auto: go on from the run folder's last checkpoint, if there is one."
    )
    preflight: bool = Field(
        True, description="Before step 1, swap images and see the loss move; check the gradients."
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="Any further field of transformers.TrainingArguments."
    )

    @model_validator(mode="after")
    def _best_needs_evaluation(self) -> Train:
        if self.keep_best:
            if self.eval_steps is None:
                raise ValueError("keep_best needs eval_steps")
            if self.save_steps is not None and self.save_steps % self.eval_steps:
                raise ValueError("with keep_best, save_steps must be a multiple of eval_steps")
        if self.early_stopping is not None and not self.keep_best:
            raise ValueError("early_stopping needs keep_best")
        return self


class Phase(Section):
    """A part of training with its own optimizer and schedule; sections override the recipe's."""

    name: str = Field(pattern=r"^[a-z0-9_-]+$", description="Name of the phase.")
    objective: Literal["language", "scene_heads"] = Field(
        "language",
        description="language: loss on target tokens. scene_heads: supervised heads on "
        "the ViT, for drawn scenes.",
    )
    tune: dict[str, Any] = Field(default_factory=dict, description="Keys of tune that differ.")
    train: dict[str, Any] = Field(default_factory=dict, description="Keys of train that differ.")


class Objectives(Section):
    lm: float = Field(1.0, ge=0, description="Weight of the language loss on target tokens.")
    itc: float = Field(
        0.0, ge=0, description="Weight of image-text contrast. With captions and family blip2."
    )
    itm: float = Field(0.0, ge=0, description="Weight of image-text matching, likewise.")
    itg: float = Field(
        0.0, ge=0, description="Weight of text generation by the Q-Former itself, likewise."
    )
    text_branch: str | None = Field(
        None,
        description="What the Q-Former's text branch starts from where itc, itm or itg is trained: "
        "a BLIP-2 retrieval checkpoint (Salesforce/blip2-itm-vit-g); null: fresh weights.",
    )

    @property
    def alignment(self) -> dict[str, float]:
        """The weights above zero of all but the language loss."""
        weights = {"itc": self.itc, "itm": self.itm, "itg": self.itg}
        return {name: weight for name, weight in weights.items() if weight > 0}

    @model_validator(mode="before")
    @classmethod
    def _rerank_is_no_objective(cls, content: Any) -> Any:
        if isinstance(content, Mapping) and "rerank" in content:
            raise ValueError('unknown key "objectives.rerank" (it is eval.rerank)')
        return content

    @model_validator(mode="after")
    def _something_is_trained(self) -> Objectives:
        if not (self.lm > 0 or self.alignment):
            raise ValueError("one weight at least must be above 0")
        if self.text_branch is not None and not self.alignment:
            raise ValueError("text_branch needs itc, itm or itg above 0")
        return self


class Decode(Section):
    max_new_tokens: int = Field(30, ge=1, description="Tokens written at most.")
    num_beams: int = Field(1, ge=1, description="Beams; 1: greedy.")
    length_penalty: float = Field(1.0, description="Exponent on length in beam search.")
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="Any further field of transformers.GenerationConfig."
    )


class Eval(Section):
    batch_size: int = Field(16, ge=1, description="Texts decoded together.")
    caption: Decode = Field(default_factory=Decode)
    answer: Decode = Field(default_factory=lambda: Decode(max_new_tokens=10))
    metrics: list[str] = Field(
        default_factory=lambda: ["auto"], min_length=1, description="Groups of metrics; see docs."
    )
    blind: bool = Field(
        True, description="Score once more with the images shuffled among the texts."
    )
    grid: int = Field(48, ge=0, description="Images shown in the report.")
    rerank: int = Field(
        128, ge=1, description="Retrieval: best candidates by contrast that matching ranks anew."
    )
    classes: list[str] = Field(
        default_factory=list,
        description="With itc: classes among which prompts choose, scored on the texts whose "
        "reference is one of them; empty: not asked.",
    )
    class_prompts: list[str] = Field(
        default_factory=lambda: ["a photo of a {}"],
        min_length=1,
        description="Prompts of a class, {} where it stands; the mean over them counts.",
    )


class Recipe(Section):
    """A whole recipe, validated; nothing changes it afterwards."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$", description="Names the run folder.")
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

    @model_validator(mode="after")
    def _evaluation_has_data(self) -> Recipe:
        if self.train.eval_steps is not None and self.data.eval is None:
            raise ValueError("train.eval_steps needs data.eval")
        return self

    @property
    def run_dir(self) -> str:
        """The run folder, relative to the working folder unless absolute."""
        return self.run.dir or f"runs/{self.name}"
