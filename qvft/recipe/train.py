"""The recipe's `train` section: steps, batches, rates, and when to stop, save and evaluate."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from qvft.recipe.section import MOST_STEPS, PathText, Section, Text

Rate = Annotated[float, Field(ge=0, le=1)]


class LearningRates(Section):
    vision: Rate = Field(1e-5, description="ViT.")
    qformer: Rate = Field(1e-5, description="Q-Former.")
    query_tokens: Rate = Field(1e-5, description="Query tokens.")
    language_projection: Rate = Field(1e-5, description="Language projection.")
    decoder: Rate = Field(1e-5, description="Decoder weights trained in full.")
    adapters: Rate = Field(1e-4, description="LoRA weights.")
    heads: Rate = Field(1e-3, description="Heads of an auxiliary objective.")

    @model_validator(mode="before")
    @classmethod
    def _one_number_is_for_all(cls, content: Any) -> Any:
        return one_rate_for_all(content)


def _or_one_number(schema: dict[str, Any]) -> None:
    """Tells editors that the section may be one number."""
    schema["anyOf"].append({"type": "number", "minimum": 0, "maximum": 1})


def one_rate_for_all(content: Any) -> Any:
    """`{group: number}` for each group of weights where `content` is one number."""
    if isinstance(content, int | float) and not isinstance(content, bool):
        return dict.fromkeys(LearningRates.model_fields, content)
    return content


class Spike(Section):
    policy: Literal["off", "skip", "stop"] = Field(
        "off",
        description="What to do about a step whose loss is a spike. skip: drop its gradients and "
        "go on with the schedule. stop: end training before it.",
    )
    window: int = Field(
        64,
        ge=8,
        le=100_000,
        description="Number of past steps to compare with; detection starts at half of them.",
    )
    deviations: float = Field(
        8.0,
        gt=0,
        description="A spike exceeds the window's median by more than this many standard "
        "deviations (estimated from the median absolute deviation), and also by `factor`.",
    )
    factor: float = Field(
        1.5, ge=1, description="A spike exceeds the window's median by this factor."
    )


class Train(Section):
    from_: PathText | None = Field(
        None,
        alias="from",
        description="Start from the trained weights of another run: a finished run, one of its "
        "checkpoints, or an adapter folder, of the same base. Optimizer, schedule and step begin "
        "anew, and what this recipe freezes keeps those weights; see docs/continuing.md. "
        "null: start from the base.",
    )
    epochs: float = Field(
        1.0, gt=0, le=1_000_000, description="Number of passes over the training texts."
    )
    max_steps: int = Field(
        -1,
        ge=-1,
        le=MOST_STEPS,
        description="Number of optimizer steps, in place of `epochs`; -1: as `epochs` says.",
    )
    per_device_train_batch_size: int = Field(
        8,
        ge=1,
        le=1_000_000,
        description="Per-device batch size, in texts; where a phase learns from pairs, in pairs.",
    )
    batch_tokens: int | None = Field(
        None,
        ge=1,
        le=MOST_STEPS,
        description="Maximum decoder tokens per device and batch, after packing, in place of "
        "`per_device_train_batch_size`, which then holds for evaluation during training only. All "
        "batches have about as many tokens, and as many target tokens; see docs/batches.md.",
    )
    texts_per_image: int = Field(
        1,
        ge=1,
        le=1_000_000,
        description="Texts per image that stay together in a batch and share one image encoding.",
    )
    packing: bool = Field(
        True,
        description="Pack texts into one row instead of padding them to the longest, and compute "
        "the prefix that the texts of an image share once. The gradients are the same.",
    )
    gradient_accumulation_steps: int = Field(
        1, ge=1, le=1_000_000, description="Batches accumulated per optimizer step."
    )
    learning_rate: LearningRates | None = Field(
        None,
        description="Peak learning rate per group of weights, or one number for all groups. null: "
        "by the size of the base, see docs/tuning.md; the log and the lock say which.",
        json_schema_extra=_or_one_number,
    )
    weight_decay: float = Field(
        0.05, ge=0, le=100, description="AdamW weight decay; not applied to biases and norms."
    )
    betas: list[Annotated[float, Field(ge=0, lt=1)]] = Field(
        default_factory=lambda: [0.9, 0.999],
        min_length=2,
        max_length=2,
        description="Beta 1 and beta 2 of AdamW.",
    )
    max_grad_norm: float = Field(
        1.0, ge=0, description="Maximum gradient norm (gradient clipping); 0: no clipping."
    )
    warmup_steps: float = Field(
        0.03,
        ge=0,
        le=MOST_STEPS,
        description="Number of linear warm-up steps; below 1: a share of all steps.",
    )
    lr_scheduler_type: Literal["cosine", "linear", "constant"] = Field(
        "cosine",
        description="Learning rate schedule after the warm-up; cosine and linear end at 0.",
    )
    min_lr_rate: float = Field(
        0.0, ge=0, lt=1, description="With cosine: final learning rate, as a share of the peak."
    )
    spike: Spike = Field(default_factory=Spike)
    mixed_precision: Literal["auto", "bf16", "no"] = Field(
        "auto",
        description="Autocast. no: float32; auto: bf16 on a GPU that supports it, otherwise no.",
    )
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations in the backward pass: less memory, slower."
    )
    torch_compile: bool = Field(
        False,
        description="Compile the decoder's blocks with torch.compile, once for all lengths, during "
        "the first steps. Needs a C++ compiler on a CPU, Triton on a GPU.",
    )
    eval_steps: int | None = Field(
        None, ge=1, le=MOST_STEPS, description="Compute the evaluation loss every N steps."
    )
    eval_limit: int | None = Field(
        None,
        ge=0,
        le=MOST_STEPS,
        description="Maximum texts of such an evaluation: whole images drawn with run.seed, the "
        "same each time. null: half as many as are trained between two evaluations, but at least "
        "256. 0: all of data.eval.",
    )
    eval_completions: int = Field(
        4,
        ge=0,
        le=1000,
        description="Number of evaluation texts that are also generated, greedily, before the "
        "first step and at each evaluation: completions.jsonl, progress.html, the report and "
        "trackers show how they change.",
    )
    save_steps: int | None = Field(
        None, ge=1, le=MOST_STEPS, description="Save a checkpoint every N steps."
    )
    save_total_limit: int = Field(
        2, ge=1, le=1_000_000, description="Number of checkpoints to keep, the best included."
    )
    load_best_model_at_end: bool = Field(
        False,
        description="End with the checkpoint of the best metric_for_best_model. Needs eval_steps.",
    )
    metric_for_best_model: Text = Field(
        "loss",
        description="What is the best checkpoint, and what early stopping watches: loss, or a "
        "score by the report's name, of greedy texts for the images of eval_limit: CIDEr, "
        "exact_match, vqa_accuracy_2017, open_token_f1, closed_accuracy, ... In a phase that "
        "learns from rewards, reward.metric decides.",
    )
    early_stopping_patience: int | None = Field(
        None,
        ge=1,
        le=MOST_STEPS,
        description="Stop after N evaluations without a better metric_for_best_model. Needs "
        "load_best_model_at_end.",
    )
    logging_steps: int = Field(10, ge=1, le=MOST_STEPS, description="Log the loss every N steps.")
    report_to: list[Text] = Field(
        default_factory=list,
        description="Experiment trackers of the HF Trainer: tensorboard, wandb, ...",
    )
    resume: Literal["never", "auto"] = Field(
        "never", description="auto: resume from the last checkpoint in the run folder, if any."
    )
    preflight: bool = Field(
        True,
        description="Before step 1, check that the loss depends on the image and that every "
        "trained component gets gradients.",
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="Any further field of transformers.TrainingArguments."
    )

    @property
    def rates(self) -> dict[str, float]:
        """Learning rate per group of weights; a phase that sets some has the defaults for the
        rest.
        """
        return (self.learning_rate or LearningRates()).model_dump()

    @field_validator("max_steps")
    @classmethod
    def _trains_at_least_a_step(cls, steps: int) -> int:
        if steps == 0:
            raise ValueError("0 would train nothing; expected 1 or more, or -1 for all epochs")
        return steps

    @field_validator("warmup_steps")
    @classmethod
    def _warms_up_whole_steps(cls, steps: float) -> float:
        if steps >= 1 and steps != int(steps):
            raise ValueError(f"{steps} steps; expected a whole number, or a share below 1")
        return steps

    @model_validator(mode="after")
    def _best_needs_evaluation(self) -> Train:
        if self.load_best_model_at_end:
            if self.eval_steps is None:
                raise ValueError("load_best_model_at_end needs eval_steps")
            if self.save_steps is not None and self.save_steps % self.eval_steps:
                raise ValueError(
                    "with load_best_model_at_end, save_steps must be a multiple of eval_steps"
                )
        elif self.metric_for_best_model != "loss":
            raise ValueError("metric_for_best_model needs load_best_model_at_end")
        if self.early_stopping_patience is not None and not self.load_best_model_at_end:
            raise ValueError("early_stopping_patience needs load_best_model_at_end")
        return self

    @model_validator(mode="after")
    def _cosine_alone_ends_above_zero(self) -> Train:
        if self.min_lr_rate and self.lr_scheduler_type != "cosine":
            raise ValueError("min_lr_rate needs lr_scheduler_type: cosine")
        if self.min_lr_rate and "lr_scheduler_kwargs" in self.arguments:
            raise ValueError("min_lr_rate and arguments.lr_scheduler_kwargs exclude each other")
        return self

    @model_validator(mode="after")
    def _tokens_are_counted_as_packed(self) -> Train:
        if self.batch_tokens is not None and not self.packing:
            raise ValueError(
                "batch_tokens needs packing: true, since it counts tokens of packed rows"
            )
        return self
