"""The recipe's `reward` section: reward tuning (SCST, RLOO, GRPO, Dr. GRPO)."""

from __future__ import annotations

import difflib
import math
from typing import Literal

from pydantic import Field, field_validator, model_validator

from qvft.dotted_names import is_dotted
from qvft.recipe.objectives import Weight
from qvft.recipe.section import Section, Text

CAPTION_FUNCS = ("cider", "bleu4", "rouge_l")
QUESTION_FUNCS = ("vqa_accuracy",)
FUNCS = (*CAPTION_FUNCS, *QUESTION_FUNCS, "exact_match", "token_f1")
"""Reward functions by name; those of neither group hold for captions and answers."""


class Reward(Section):
    """Names and defaults are those of trl's RLOOConfig, and of its GRPOConfig for the rest."""

    funcs: dict[Text, float] = Field(
        default_factory=dict,
        description="Reward functions with their weights: " + ", ".join(FUNCS) + ", or "
        "package.module.name of your own, with trl's signature (docs/reward.md). cider, bleu4 and "
        "rouge_l score captions, vqa_accuracy answers, the others both.",
    )
    advantage: Literal["rloo", "greedy", "grpo", "dr_grpo"] = Field(
        "rloo",
        description="Baseline of a sample's reward. rloo: mean of the other samples of its prompt "
        "(leave-one-out). greedy: reward of the greedy text (SCST), one more decoding. grpo: mean "
        "of all samples of its prompt, divided by their standard deviation. dr_grpo: that mean.",
    )
    num_generations: int = Field(
        2, ge=2, le=1024, description="Samples per image or question and step."
    )
    temperature: float = Field(
        1.0, gt=0, le=100, description="Divides the logits, in sampling and in the loss."
    )
    max_completion_length: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="Maximum tokens of a sample, with the stop token; null: as evaluation, "
        "eval.caption.max_new_tokens and eval.answer.max_new_tokens.",
    )
    stop_token: bool = Field(
        True,
        description="The stop token is a word of cider's and bleu4's n-grams. Without it, captions "
        'that end in fragments ("with a") score higher.',
    )
    beta: float = Field(
        0.05,
        ge=0,
        le=1_000_000,
        description="Weight of the KL divergence to the weights at the phase's start. rloo and "
        "greedy subtract it from the reward of a sample, grpo and dr_grpo add it to the loss of a "
        "token. 0: none.",
    )
    lm: Weight = Field(
        0.0,
        description="Weight of the language loss on the references of the same images and "
        "questions.",
    )
    num_iterations: int = Field(
        1, ge=1, le=1000, description="Optimizer steps per generation of samples."
    )
    epsilon: float = Field(
        0.2,
        gt=0,
        le=1000,
        description="Clips the ratio of probabilities, new to sampled, at 1 - epsilon, with "
        "num_iterations above 1.",
    )
    epsilon_high: float | None = Field(
        None, gt=0, le=1000, description="Clips the ratio at 1 + epsilon_high; null: as epsilon."
    )
    scale_rewards: Literal["group", "none"] | None = Field(
        None,
        description="With grpo and dr_grpo: whether to divide by the standard deviation of the "
        "prompt's samples. null: group for grpo, none for dr_grpo.",
    )
    loss_type: Literal["rloo", "grpo", "dr_grpo", "dapo"] | None = Field(
        None,
        description="Mean of the loss. rloo: sum over a sample's tokens, mean over samples. grpo: "
        "mean over a sample's tokens, mean over samples. dr_grpo: sum over tokens, divided by "
        "samples times max_completion_length. dapo: mean over all tokens. null: grpo and dr_grpo "
        "for these advantages, rloo for the others.",
    )
    metric: Text | None = Field(
        None,
        description="Metric of the greedy texts of data.eval, every train.eval_steps, that chooses "
        "the checkpoint (train.load_best_model_at_end) and stops the phase when it falls "
        "(train.early_stopping_patience): a name as in funcs; null: the weighted sum of funcs.",
    )

    @property
    def loss(self) -> Literal["rloo", "grpo", "dr_grpo", "dapo"]:
        """`loss_type`, or what `advantage` stands for."""
        if self.loss_type is not None:
            return self.loss_type
        return "rloo" if self.advantage == "greedy" else self.advantage

    @property
    def is_scaled(self) -> bool:
        """Whether advantages are divided by the standard deviation of their group."""
        return (self.scale_rewards or {"grpo": "group"}.get(self.advantage)) == "group"

    @property
    def clip_range(self) -> tuple[float, float]:
        """Lowest and highest ratio of probabilities."""
        high = self.epsilon if self.epsilon_high is None else self.epsilon_high
        return 1 - self.epsilon, 1 + high

    @property
    def kl_in_reward(self) -> float:
        """`beta`, if the KL divergence is subtracted from rewards; else 0."""
        return self.beta if self.loss == "rloo" else 0.0

    @property
    def kl_in_loss(self) -> float:
        """`beta`, if the KL divergence is a term of the loss; else 0."""
        return 0.0 if self.loss == "rloo" else self.beta

    @property
    def scored(self) -> tuple[str, ...]:
        """Names of `funcs`, and of `metric` if it is not among them."""
        return tuple(dict.fromkeys([*self.funcs, *([self.metric] if self.metric else [])]))

    @field_validator("funcs")
    @classmethod
    def _weights_count(cls, funcs: dict[str, float]) -> dict[str, float]:
        for name, weight in funcs.items():
            require_known(name)
            if not math.isfinite(weight) or weight == 0:
                raise ValueError(f"{name} has the weight {weight}; expected a number other than 0")
        return funcs

    @field_validator("metric")
    @classmethod
    def _metric_is_known(cls, metric: str | None) -> str | None:
        if metric is not None:
            require_known(metric)
        return metric

    @model_validator(mode="after")
    def _references_have_no_temperature(self) -> Reward:
        if self.lm and self.temperature != 1:
            raise ValueError(f"lm has no temperature, which is {self.temperature:g}; expected 1")
        return self

    @model_validator(mode="after")
    def _groups_are_scaled(self) -> Reward:
        if self.scale_rewards is not None and self.advantage not in ("grpo", "dr_grpo"):
            raise ValueError(f"scale_rewards has no effect with advantage: {self.advantage}")
        if (self.loss == "rloo") != (self.advantage in ("rloo", "greedy")):
            raise ValueError(
                f"loss_type {self.loss} does not fit advantage {self.advantage}; expected null"
            )
        return self


def require_known(name: str) -> None:
    """Raises ValueError unless it is one of `FUNCS`, or a dotted name."""
    if name in FUNCS or is_dotted(name):
        return
    near = difflib.get_close_matches(name, FUNCS, n=1)
    known = ", ".join([*FUNCS, "or package.module.name of your own"])
    hint = f'did you mean "{near[0]}"?' if near else f"expected {known}"
    raise ValueError(f'"{name}" is no metric of a single text; {hint}')


def kinds_of(name: str) -> tuple[str, ...]:
    """The kinds of rows whose texts a reward function scores; both for a function of your own."""
    if name in CAPTION_FUNCS:
        return ("caption",)
    return ("question",) if name in QUESTION_FUNCS else ("caption", "question")
