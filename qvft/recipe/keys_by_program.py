"""Which command reads which recipe key; overrides that a command would ignore are refused.

Training, `qvft.check` and `qvft.bench` accept all keys of a recipe. The other commands use the
recipe of a finished run, in which changing a training key would have no effect.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from qvft.errors import RecipeError
from qvft.recipe.yaml_text import yaml_override_value

_TRAINING_KEYS: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "trainable", "train", "phases", "objectives", "preference", "reward",
            "data.mixing_temperature", "data.stopping_strategy",
        ),
        "it affects training only",
    ),
    **dict.fromkeys(
        ("data.augmentations_per_image", "data.augment"),
        "augmented views are for training; evaluation uses the original images",
    ),
    "data.license": "qvft push reads it from the recipe of a data folder",
}  # fmt: skip
_EVAL: Mapping[str, str] = {
    **_TRAINING_KEYS,
    **dict.fromkeys(
        (
            "data.train.name", "data.train.texts", "data.train.captions_per_image",
            "data.train.shuffle_buffer", "data.train.prompt", "data.train.answers",
            "data.train.weight",
        ),
        "it affects training only",
    ),
}  # fmt: skip
_MERGE: Mapping[str, str] = {
    **_TRAINING_KEYS,
    **dict.fromkeys(
        ("data.features", "data.features_dtype", "data.features_limit_gb"),
        "features are not cached here",
    ),
    **dict.fromkeys(
        (
            "eval.batch_size", "eval.metrics", "eval.blind", "eval.report_images", "eval.rerank",
            "eval.classes", "eval.class_prompts", "eval.retention", "eval.scores",
            "eval.candidates", "eval.abstain_below",
        ),
        "no report is made",
    ),
    "run.dir": "the folder to write is named on the command line",
    "model.image_size": "a run keeps the size it was trained with",
}  # fmt: skip
IGNORED: Mapping[str, Mapping[str, str]] = {"eval": _EVAL, "merge": _MERGE, "export": _MERGE}
"""Keys that a program does not read, with the reason; a section stands for all of its keys."""

OF_A_RUN: Mapping[str, str] = {
    "name": "a run is where it is; --out names another folder for the report",
    "run.dir": "a run is where it is; --out names another folder for the report",
}
"""Keys that evaluation of a run also ignores."""

OF_A_MODEL: Mapping[str, str] = {
    "model.quantization": "a finished model is evaluated as it is stored"
}
"""Keys that evaluation of a model that is not the base of its recipe also ignores. Other keys of
`model` describe that base, and may be repeated as they were for training."""


def refuse_ignored(
    overrides: Iterable[str],
    program: str,
    *,
    also: Mapping[str, str] | None = None,
    repeats: Callable[[str], bool] = lambda _: False,
) -> None:
    """Raises RecipeError for an override key that a program does not read, with the reason.

    Switching something off (`null`, `false`, `none`) is always allowed: a recipe whose data is gone
    may need it.

    Args:
        also: further keys that it ignores, with the reason.
        repeats: whether an override equals the value in use, which is allowed.
    """
    ignored = {**IGNORED[program], **(also or {})}
    for override in overrides:
        key, _, text = override.partition("=")
        key = key.strip()
        of_any = re.sub(r"^(data\.\w+)\.\d+", r"\1", key)  # data.train.0.weight
        reason = next((ignored[one] for one in ignored if covers(one, of_any)), None)
        if reason is None:
            continue
        value = yaml_override_value(text, where=f"command line: {key}")
        off = value is None or value is False or value == "none"
        if not off and not repeats(override):
            raise RecipeError(
                f"qvft.{program} does not read it: {reason}",
                where=f"command line: {key}",
                do="remove it",
            )


def covers(section: str, key: str) -> bool:
    """Whether `section` is `key`, or a section that holds it."""
    return key == section or key.startswith(f"{section}.")
