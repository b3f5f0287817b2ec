"""Provenance of an evaluation: model, data, decoding settings, versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Part(BaseModel):
    """A part of `report.json`: frozen, every field described, no other field allowed."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelFacts(Part):
    """The evaluated model. Hashes are SHA-256, in hexadecimal."""

    name: str | None = Field(None, description="run, folder or hub id as it was named")
    kind: str | None = Field(
        None, description="`run`, `base` (what the recipe trains) or `model` (any other)"
    )
    base: str | None = Field(None, description="hub id or folder of the base")
    base_revision: str | None = Field(None, description="commit of a base from the hub")
    decoder: str | None = Field(
        None, description="hub id or folder of the decoder, where `model.decoder` sets it"
    )
    base_weights_sha256: str | None = Field(
        None, description="hash over the hashes of the base's weight files"
    )
    adapter_sha256: dict[str, str] = Field(
        {}, description="of a run: hash of each file with trained weights, by file name"
    )
    recipe_sha256: str | None = Field(
        None, description="of a run: hash of all keys of its recipe that shape the weights"
    )
    started_from: dict[str, str] = Field(
        {},
        description="of a run with `train.from`: path, and hashes of recipe and weights, of the "
        "run it started from",
    )
    image_size: int | None = Field(
        None, description="pixels per side of the images, where `model.image_size` sets it"
    )
    dtype: str | None = Field(None, description="type of the frozen weights")
    quantize: str | None = Field(None, description="4-bit type of the decoder, or `none`")
    attention: str | None = Field(None, description="attention kernel")
    device: str | None = Field(None, description="what it ran on")


class DataFacts(Part):
    """The evaluation data."""

    format: str | None = Field(None, description="name of the format")
    name: str | None = Field(None, description="what the split is called, DATASET-SPLIT")
    path: str | None = Field(None, description="file or folder it was read from, as it was named")
    images: int | None = Field(None, description="images used")
    sha256: str | None = Field(
        None, description="hash over ids, image names, captions, questions and answers"
    )
    images_sha256: str | None = Field(
        None, description="hash over the content of the image files; null where there are none"
    )


class DecodeFacts(Part):
    """Decoding settings."""

    captions: dict[str, Any] = Field({}, description="`GenerationConfig` fields for captions")
    questions: dict[str, Any] = Field({}, description="`GenerationConfig` fields for answers")
    batch_size: int | None = Field(None, description="texts decoded together")
    prompt: dict[str, str | bool] = Field(
        {},
        description="text before a caption, and before an answer with `{question}`; "
        "`chat_template: true` if they are written through the decoder's chat template",
    )
    text: str = Field(
        "as_written", description="captions and questions `as_written`, or cleaned as `blip2` does"
    )
    max_text_tokens: int | None = Field(
        None, description="maximum tokens per prompt; longer ones are truncated on the left"
    )
    rerank: int | None = Field(
        None, description="retrieval: best candidates by contrast that matching ranks anew"
    )
    classes: list[str] = Field([], description="classes among which prompts choose")
    class_prompts: list[str] = Field([], description="the prompts, with `{}` for the class")
    candidates_sha256: str | None = Field(None, description="of the candidates of every question")
    abstain_below: float | None = Field(None, description="lowest probability of an answer")


class SettingDifference(Part):
    """A setting in which two evaluations differ."""

    setting: str = Field(description="its path in `report.json`, e.g. `decode.batch_size`")
    a: Any = Field(description="here; null where it is not set or not known")
    b: Any = Field(description="in the other evaluation")


def setting_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[SettingDifference]:
    """Differences of two nested mappings of JSON values, by path, in alphabetical order."""
    first, second = dict(_leaves(a, "")), dict(_leaves(b, ""))
    return [
        SettingDifference(setting=path, a=first.get(path), b=second.get(path))
        for path in sorted(first.keys() | second.keys())
        if first.get(path) != second.get(path)
    ]


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value
