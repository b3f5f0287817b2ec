"""The recipe's `train` section: steps, batches, rates, and when to stop, save and evaluate."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from qvft.recipe.section import MOST_STEPS, Section, Text

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
    section = {"$ref": schema.pop("$ref")}
    schema["anyOf"] = [section, {"type": "number", "minimum": 0, "maximum": 1}]


def one_rate_for_all(content: Any) -> Any:
    """`{group: number}` for each group of weights where `content` is one number."""
    if isinstance(content, int | float) and not isinstance(content, bool):
        return dict.fromkeys(LearningRates.model_fields, content)
    return content


class Spike(Section):
    policy: Literal["off", "skip", "stop"] = Field(
        "off",
        description="What is done about a step whose loss is a spike. skip: its gradients are "
        "dropped, the schedule goes on. stop: training ends before it.",
    )
    window: int = Field(
        64,
        ge=8,
        le=100_000,
        description="Steps looked back on; spikes are told once half of them are known.",
    )
    deviations: float = Field(
        8.0,
        gt=0,
        description="A spike lies above their median by more than this many standard deviations, "
        "estimated from their median absolute deviation, and",
    )
    factor: float = Field(1.5, ge=1, description="above this many times their median.")


class Train(Section):
    epochs: float = Field(1.0, gt=0, le=1_000_000, description="Passes over the texts.")
    max_steps: int = Field(
        -1,
        ge=-1,
        le=MOST_STEPS,
        description="Optimizer steps, 1 or more; -1: what epochs come to.",
    )
    batch_size: int = Field(8, ge=1, le=1_000_000, description="Texts a device and step.")
    batch_tokens: int | None = Field(
        None,
        ge=1,
        le=MOST_STEPS,
        description="In place of batch_size, which then counts for evaluation while training "
        "alone: tokens that the decoder has a device and step at most, as they are packed. Every "
        "batch has about as many of them, and as many to learn; see docs/batches.md.",
    )
    texts_per_image: int = Field(
        1,
        ge=1,
        le=1_000_000,
        description="Texts of an image kept together in a batch; it is encoded once for them.",
    )
    packing: bool = Field(
        True,
        description="Lay texts side by side instead of padding each to the longest, with what an "
        "image's texts begin with there once. The gradients are the same.",
    )
    accumulation: int = Field(
        1, ge=1, le=1_000_000, description="Batches summed before an optimizer step."
    )
    lr: LearningRates = Field(
        default_factory=LearningRates,
        description="Highest learning rate of each group of weights; one number is for all groups.",
        json_schema_extra=_or_one_number,
    )
    weight_decay: float = Field(0.05, ge=0, le=100, description="AdamW; not on biases and norms.")
    betas: list[Annotated[float, Field(ge=0, lt=1)]] = Field(
        default_factory=lambda: [0.9, 0.999],
        min_length=2,
        max_length=2,
        description="AdamW's decay rates.",
    )
    clip: float = Field(1.0, ge=0, description="Largest gradient norm; 0: no clipping.")
    warmup: float = Field(
        0.03, ge=0, le=MOST_STEPS, description="Whole steps, or below 1 a share of all steps."
    )
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="Learning rates after the warm-up; cosine and linear end at zero."
    )
    min_lr_rate: float = Field(
        0.0, ge=0, lt=1, description="Cosine ends at this share of each rate instead of at zero."
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
    eval_steps: int | None = Field(
        None, ge=1, le=MOST_STEPS, description="Evaluate the loss every N steps."
    )
    save_steps: int | None = Field(
        None, ge=1, le=MOST_STEPS, description="Checkpoint every N steps."
    )
    keep: int = Field(
        2, ge=1, le=1_000_000, description="Checkpoints kept, the best one among them."
    )
    keep_best: bool = Field(
        False, description="End with the checkpoint of the lowest eval loss; needs eval_steps."
    )
    early_stopping: int | None = Field(
        None,
        ge=1,
        le=MOST_STEPS,
        description="Stop after N evaluations without a lower loss; needs keep_best.",
    )
    log_steps: int = Field(10, ge=1, le=MOST_STEPS, description="Log the loss every N steps.")
    report_to: list[Text] = Field(
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

    @field_validator("max_steps")
    @classmethod
    def _trains_at_least_a_step(cls, steps: int) -> int:
        if steps == 0:
            raise ValueError("0 would train nothing; expected 1 or more, or -1 for all epochs")
        return steps

    @field_validator("warmup")
    @classmethod
    def _warms_up_whole_steps(cls, steps: float) -> float:
        if steps >= 1 and steps != int(steps):
            raise ValueError(f"{steps} steps; expected a whole number, or a share below 1")
        return steps

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
    def _cosine_alone_ends_above_zero(self) -> Train:
        if self.min_lr_rate and self.schedule != "cosine":
            raise ValueError("min_lr_rate needs schedule: cosine")
        if self.min_lr_rate and "lr_scheduler_kwargs" in self.arguments:
            raise ValueError("min_lr_rate and arguments.lr_scheduler_kwargs exclude each other")
        return self

    @model_validator(mode="after")
    def _tokens_are_counted_as_packed(self) -> Train:
        if self.batch_tokens is not None and not self.packing:
            raise ValueError("batch_tokens needs packing: padded rows have no such number")
        return self
