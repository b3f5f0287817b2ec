"""Writes the recipe of a new project as YAML with comments."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML

from qvft.data.sample import Sample
from qvft.models.model_path import TINY_ID

TINY_STEPS = 400
"""Optimizer steps of the bundled model: the digits of the quickstart are learnt in 400."""
PHOTO = "a photo of"


@dataclass(frozen=True)
class DataFacts:
    """What a recipe depends on: counts of the training data, and its longest texts in words."""

    images: int
    texts: int
    longest_answer: int
    longest_caption: int
    begins_with_photo: bool


def facts_of(samples: Sequence[Sample]) -> DataFacts:
    """The facts of the training data."""
    captions = [text for sample in samples for text in sample.captions]
    answers = [text for one in samples for asked in one.questions for text in asked.answers]
    photos = sum(text.lower().startswith(PHOTO) for text in captions)
    return DataFacts(
        images=len(samples),
        texts=len(captions) + sum(len(sample.questions) for sample in samples),
        longest_answer=max((len(text.split()) for text in answers), default=0),
        longest_caption=max((len(text.split()) for text in captions), default=0),
        begins_with_photo=photos > len(captions) / 2,
    )


def recipe_of(
    name: str, model: Mapping[str, Any], rows: int, folder: str, facts: DataFacts, *, outside: bool
) -> dict[str, Any]:
    """The recipe as a mapping.

    Args:
        rows: texts per device; ignored for the bundled model.
        outside: images lie outside of `folder`, which is then not logged.
    """
    is_tiny = model["id"] == TINY_ID
    source = {"format": "jsonl"} | ({"allow_paths_outside_root": True} if outside else {})
    recipe: dict[str, Any] = {
        "name": name,
        "model": dict(model),
        "data": {
            "train": {**source, "path": f"{folder}/train.jsonl", "name": f"{name}-train"},
            "eval": {**source, "path": f"{folder}/val.jsonl", "name": f"{name}-val"},
            "prompt": {
                "caption": "" if is_tiny or facts.begins_with_photo else PHOTO,
                "question": "Question: {question} Answer:",
            },
            "max_text_tokens": 128,
        },
        "trainable": {
            "decoder": "lora",
            "lora": {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"},
        },
        "train": _tiny_training(facts) if is_tiny else _training(rows, facts),
        "eval": {
            "batch_size": 64 if is_tiny else 8,
            "answer": {"max_new_tokens": _tokens(facts.longest_answer)},
            "caption": {"max_new_tokens": _tokens(facts.longest_caption)},
        },
    }
    if is_tiny:
        recipe["data"] |= {"num_workers": 0, "cache_images": facts.images <= 5000}
    return recipe


def _tiny_training(facts: DataFacts) -> dict[str, Any]:
    rows = 64 if facts.texts >= 1000 else 16
    return {
        "epochs": min(40, max(3, round(TINY_STEPS * rows / max(1, facts.texts)))),
        "per_device_train_batch_size": rows,
        "texts_per_image": min(4, max(1, facts.texts // max(1, facts.images))),
        "warmup_steps": 20,
        "logging_steps": 50,
    }


def _training(rows: int, facts: DataFacts) -> dict[str, Any]:
    accumulation = max(1, 16 // rows)
    steps = math.ceil(facts.texts / 16) * 5
    every = max(10, steps // 10)
    return {
        "epochs": 5,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": accumulation,
        "weight_decay": 0.05,
        "betas": [0.9, 0.999],
        "max_grad_norm": 1.0,
        "warmup_steps": 0.05,
        "lr_scheduler_type": "cosine",
        "gradient_checkpointing": True,
        "eval_steps": every,
        "save_steps": every,
        "save_total_limit": 2,
        "load_best_model_at_end": True,
    }


def _tokens(words: int) -> int:
    """Tokens to generate at most for texts of so many words: up to four a word, and the end."""
    return min(128, max(8, 4 * words + 4))


def recipe_text(recipe: Mapping[str, Any], comments: list[str]) -> str:
    """The recipe as YAML below its comments."""
    stream = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(dict(recipe), stream)
    return "".join(f"# {line}\n" for line in comments) + stream.getvalue()
