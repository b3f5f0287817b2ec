"""The recipe's `data` section: its sources, prompts, lengths, image cache and augmentation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from qvft.recipe.section import MOST_SEED, Section, Text
from qvft.recipe.source import OneOrSeveral, QuestionPrompt, Source


def _side_by_side(schema: dict[str, Any]) -> None:
    """One list of the types that a key may have, instead of nested ones."""
    schema["anyOf"] = [one for given in schema["anyOf"] for one in given.get("oneOf", [given])]


class Prompt(Section):
    caption: str = Field("", description="Text before a caption; no loss on it.")
    question: QuestionPrompt = Field(
        "Question: {question} Answer:",
        description="Text before an answer, with {question}; no loss on it.",
    )
    chat_template: bool = Field(
        False,
        description="Write these texts as the user's turn of the decoder's chat template; the "
        "target is the assistant's answer.",
    )

    def recorded(self) -> dict[str, str | bool]:
        """For reports and records: the texts, and `chat_template` where it is set."""
        return self.model_dump(exclude=set() if self.chat_template else {"chat_template"})

    @field_validator("caption", mode="before")
    @classmethod
    def _nothing_is_no_text(cls, caption: Any) -> Any:
        return "" if caption is None else caption  # `data.prompt.caption=""` in a shell


class Augment(Section):
    """Augmentations of an image; `data.augmentations_per_image` is the number of views."""

    crop: float = Field(
        0.85,
        ge=0.01,
        le=1,
        description="Random crop: minimum share of the image's area, at its aspect ratio; 1: no "
        "crop. Wrong where details at the border matter.",
    )
    brightness: float = Field(
        0.1, ge=0, lt=1, description="Brightness factor drawn from 1 - this to 1 + this."
    )
    contrast: float = Field(
        0.1, ge=0, lt=1, description="Contrast factor drawn from 1 - this to 1 + this."
    )
    mirror: bool = Field(
        False,
        description="Horizontal flip of half of the views. Wrong where texts say left or right.",
    )
    seed: int = Field(
        0,
        ge=0,
        le=MOST_SEED,
        description="Seed of the views, independent of run.seed, so that runs share cached views.",
    )

    @property
    def changes(self) -> bool:
        """Whether a view differs from the image at all."""
        return self.crop < 1 or self.brightness > 0 or self.contrast > 0 or self.mirror


class Data(Section):
    train: OneOrSeveral | None = Field(
        None,
        description="Training data: a source, or a list of sources.",
        json_schema_extra=_side_by_side,
    )
    eval: OneOrSeveral | None = Field(
        None,
        description="Evaluation data, never trained on: a source, or a list of sources, each with "
        "a report of its own.",
        json_schema_extra=_side_by_side,
    )
    license: Text | None = Field(
        None,
        description="Licence of the data, an identifier of the hub, e.g. cc-by-4.0; for the card "
        "that `qvft push` makes of a data folder.",
    )
    mixing_temperature: float | None = Field(
        None,
        ge=1,
        le=1000,
        description="Of a list of training sources, in place of weights: shares proportional to "
        "size ** (1 / this), as in T5; 1: proportional, the larger the more equal.",
    )
    stopping_strategy: Literal["first_exhausted", "all_exhausted"] = Field(
        "first_exhausted",
        description="Length of an epoch of weighted sources. first_exhausted: no text comes twice, "
        "and larger sources show other texts in the next epoch. all_exhausted: each text comes at "
        "least once, those of smaller sources several times.",
    )
    prompt: Prompt = Field(default_factory=Prompt)
    text: Literal["as_written", "blip2"] = Field(
        "as_written",
        description="Cleaning of captions and questions. blip2: lower case, without "
        ".!\"()*#:;~, first 50 words, as in BLIP-2's own code. Answers and the references of "
        "metrics stay as written.",
    )
    max_text_tokens: int = Field(
        128,
        ge=8,
        le=1_000_000,
        description="Maximum prompt and target tokens per row. Longer prompts are truncated on the "
        "left, targets on the right; both are counted.",
    )
    on_bad_image: Literal["error", "skip"] = Field(
        "error", description="Missing or broken images: stop, or skip them, counted and listed."
    )
    max_image_pixels: int = Field(
        64_000_000,
        ge=1,
        description="Maximum pixels per image (protection against decompression bombs). The "
        "maximum file size is 8 bytes per pixel of it plus 16 MiB.",
    )
    preprocessing: Literal["checkpoint", "plain"] = Field(
        "checkpoint",
        description="checkpoint: the checkpoint's image processor. plain: resized without keeping "
        "the aspect ratio, values from 0 to 1, as in QVision's published notebook.",
    )
    num_workers: int = Field(
        2, ge=0, le=512, description="Data loader processes, which decode images."
    )
    features: Literal["auto", "off"] = Field(
        "auto",
        description="auto: cache the features of a frozen ViT on disk, for all runs and "
        "evaluations ($QVFT_CACHE, or ~/.cache/qvft/features).",
    )
    features_dtype: Literal["auto", "float32", "bfloat16", "int8"] = Field(
        "auto",
        description="Type of cached features. auto: the ViT's own, exact. int8: half the size of "
        "bfloat16, rounded; see docs/features.md.",
    )
    features_limit_gb: float = Field(
        100.0,
        gt=0,
        le=1_000_000,
        description="Maximum size of the recipe's cached features, in 10^9 bytes. Above it, or "
        "with less free disk space, the ViT runs in every step.",
    )
    augmentations_per_image: int = Field(
        0,
        ge=0,
        le=1000,
        description="Augmented views per training image. Each epoch shows the original image or "
        "one of its views. Views are cached too, each as large as the original. Evaluation uses "
        "the original images.",
    )
    augment: Augment = Field(default_factory=Augment, description="Augmentations of the views.")
    cache_images: bool = Field(
        False,
        description="Cache normalised images in memory, 12 bytes per pixel at the model's input "
        "size: for small data and several epochs. Needs num_workers: 0.",
    )

    def sources(self, which: str) -> Iterator[tuple[str, Source]]:
        """The sources of `train` or `eval` by key path below `data`: `train`, or `train.0`, ...; of
        `train.0` that one.
        """
        which, _, place = which.partition(".")
        given: Source | list[Source] | None = getattr(self, which)
        if isinstance(given, Source):
            yield which, given
        for number, source in enumerate(given if isinstance(given, list) else ()):
            if place in ("", str(number)):
                yield f"{which}.{number}", source

    def lists(self, which: str) -> bool:
        """Whether `train` or `eval` is a list of sources."""
        return "." not in which and isinstance(getattr(self, which), list)

    @model_validator(mode="after")
    def _cache_is_in_this_process(self) -> Data:
        if self.cache_images and self.num_workers:
            raise ValueError("cache_images needs num_workers: 0, since processes share no memory")
        return self

    @model_validator(mode="after")
    def _views_differ(self) -> Data:
        if self.augmentations_per_image and not self.augment.changes:
            raise ValueError(
                "augmentations_per_image needs an augmentation, for example augment.crop below 1"
            )
        return self
