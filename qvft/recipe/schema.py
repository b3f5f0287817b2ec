"""What a recipe may say: every key with its type, default, unit and effect.

The JSON schema for editors and docs/recipe_reference.md are generated from these classes. Nothing
here imports torch: a recipe is checked in milliseconds.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from qvft.recipe.augment import Augment
from qvft.recipe.objectives import Objectives
from qvft.recipe.section import Section
from qvft.recipe.streaming import require_streamable

Trained = Literal["frozen", "full"]


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
    stream: bool = Field(
        False,
        description="Training data alone, of format tar or hf: pass over it instead of listing it, "
        "for data larger than memory. Needs train.max_steps; see docs/formats.md.",
    )
    shuffle_buffer: int = Field(
        10_000,
        ge=1,
        description="With stream: groups of texts that are held, from which the next is drawn.",
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
    views: int = Field(
        0,
        ge=0,
        description="Augmented views of each training image; an epoch shows an image as it is or "
        "in one of them. They are cached beside it, each in as much room. Evaluation sees images "
        "as they are.",
    )
    augment: Augment = Field(default_factory=Augment, description="How views differ.")
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

    @model_validator(mode="after")
    def _views_differ(self) -> Data:
        if self.views and not self.augment.changes:
            raise ValueError("views need an augmentation: augment.crop below 1, for example")
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


class Spike(Section):
    policy: Literal["off", "skip", "stop"] = Field(
        "off",
        description="What is done about a step whose loss is a spike. skip: its gradients are "
        "dropped, the schedule goes on. stop: training ends before it.",
    )
    window: int = Field(
        64, ge=8, description="Steps looked back on; spikes are told once half of them are known."
    )
    deviations: float = Field(
        8.0,
        gt=0,
        description="A spike lies above their median by more than this many standard deviations, "
        "estimated from their median absolute deviation, and",
    )
    factor: float = Field(1.5, ge=1, description="above this many times their median.")


class Train(Section):
    epochs: float = Field(1.0, gt=0, description="Passes over the texts.")
    max_steps: int = Field(-1, ge=-1, description="Optimizer steps; -1: what epochs come to.")
    batch_size: int = Field(8, ge=1, description="Texts a device and step.")
    batch_tokens: int | None = Field(
        None,
        ge=1,
        description="In place of batch_size, which then counts for evaluation while training "
        "alone: tokens that the decoder has a device and step at most, as they are packed. Every "
        "batch has about as many of them, and as many to learn; see docs/batches.md.",
    )
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
    spike: Spike = Field(default_factory=Spike)
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="Autocast; auto: bf16 where a GPU has it, otherwise fp32."
    )
    checkpointing: bool = Field(False, description="Recompute activations; less memory, slower.")
    compile: bool = Field(
        False,
        description="torch.compile the decoder's blocks, once for all lengths. The first steps "
        "wait for it; needs a C++ compiler on a CPU, Triton on a GPU.",
    )
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

    @model_validator(mode="after")
    def _tokens_are_counted_as_packed(self) -> Train:
        if self.batch_tokens is not None and not self.packing:
            raise ValueError("batch_tokens needs packing: padded rows have no such number")
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
