"""The recipe's `eval` section: decoding, metrics, baselines, retrieval and zero-shot classes."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from qvft.recipe.section import PathText, Section, Text
from qvft.recipe.source import Source


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
    scores: bool = Field(
        False,
        description="Add the log-probability of each text, and the calibration of answers to the "
        "report.",
    )
    candidates: list[Text] | PathText | None = Field(
        None,
        description="Answers to rank by their likelihood, for questions without candidates of "
        "their own whose answer is among them: a list, a text file with one per line, or train for "
        "the answers of data.train.",
    )
    abstain_below: float | None = Field(
        None, ge=0, le=1, description="Mark texts with a lower probability as abstained."
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
