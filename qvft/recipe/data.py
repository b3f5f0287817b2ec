"""The recipe's `data` section: where texts and images come from and how they are read."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from qvft.recipe.augment import Augment
from qvft.recipe.section import MOST_STEPS, PathText, Section, Text


class Source(Section):
    format: Text = Field(
        "jsonl",
        description="Name of a format (`qvft.convert --list`), or package.module.name of "
        "your own; see docs/formats.md.",
    )
    path: PathText | None = Field(None, description="File or folder the format reads.")
    name: Text | None = Field(
        None,
        description="What reports and their folders call it, at most 100 characters and without "
        "/ and \\; null: from the path.",
    )
    split: Text | None = Field(None, description="Which split, where the format has several.")
    images: PathText | None = Field(None, description="Image folder, where it lies apart.")
    allow_outside: bool = Field(
        False,
        description="Images may lie outside the image folder (that of path, or images): rows with "
        "../, absolute paths, links that lead elsewhere. For data you trust.",
    )
    questions: PathText | None = Field(
        None, description="VQA v2: question file, where it lies apart."
    )
    annotations: PathText | None = Field(
        None, description="VQA v2: annotation file, where it lies apart."
    )
    columns: dict[Text, Text] = Field(
        default_factory=dict, description="Column names of a Hugging Face dataset."
    )
    limit: int | None = Field(None, ge=1, description="Read this many images only.")
    texts: Literal["all", "captions", "questions"] = Field(
        "all", description="Which texts of the images to use."
    )
    captions_per_image: int | None = Field(
        None,
        ge=1,
        le=MOST_STEPS,
        description="Use at most this many captions per image, the first ones; null: all.",
    )
    stream: bool = Field(
        False,
        description="Training data alone, of format tar or hf: pass over it instead of listing it, "
        "for data larger than memory. Needs train.max_steps; see docs/formats.md.",
    )
    shuffle_buffer: int = Field(
        10_000,
        ge=1,
        le=MOST_STEPS,
        description="With stream: groups of texts that are held, from which the next is drawn.",
    )

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str | None) -> str | None:
        if name is not None and (problem := folder_name_problem(name)):
            raise ValueError(f"{name[:40]!r} {problem}; a folder is called after it")
        return name


LONGEST_NAME = 100
"""Characters of a name that a folder gets, of at most four bytes each where 255 have room beside
an ending; and longer ones help nobody."""


def folder_name_problem(name: str) -> str | None:
    """Why a name cannot be that of one folder on any system; None: it can."""
    if len(name) > LONGEST_NAME or len(name.encode(errors="replace")) > 2 * LONGEST_NAME:
        return f"has {len(name)} characters, at most {LONGEST_NAME} are allowed"
    if set(name) & set("/\\"):
        return "holds a / or \\"
    if name.strip(". ") != name.strip() or name != name.strip():
        return "begins or ends with a dot or blank"
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        return "holds a control character"
    return None


class Prompt(Section):
    caption: str = Field("", description="Text before a caption; no loss on it.")
    question: str = Field(
        "Question: {question} Answer:",
        description="Text before an answer, with {question}; no loss on it.",
    )

    @field_validator("question")
    @classmethod
    def _question_is_asked(cls, question: str) -> str:
        if "{question}" not in question:
            raise ValueError(f"{question!r} must contain {{question}}")
        return question


class Data(Section):
    train: Source | None = Field(None, description="What is trained on.")
    eval: Source | None = Field(None, description="What is evaluated on; never trained on.")
    prompt: Prompt = Field(default_factory=Prompt)
    text: Literal["as_written", "blip2"] = Field(
        "as_written",
        description="What the model reads of captions and questions. blip2: in lower case, without "
        ".!\"()*#:;~, the first 50 words, as BLIP-2's own program prepares them. Answers, and the "
        "references of metrics, stay as written.",
    )
    max_text_tokens: int = Field(
        128,
        ge=8,
        le=1_000_000,
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
    preprocessing: Literal["checkpoint", "plain"] = Field(
        "checkpoint",
        description="checkpoint: pixels as its image processor makes them. plain: resized without "
        "keeping the shape, values from 0 to 1, as QVision's published notebook has it.",
    )
    workers: int = Field(2, ge=0, le=512, description="Processes that decode images.")
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
        le=1_000_000,
        description="Features of a recipe's images may take this much, in 10^9 bytes; above it, or "
        "where the disk has less, the ViT runs in every step.",
    )
    views: int = Field(
        0,
        ge=0,
        le=1000,
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
