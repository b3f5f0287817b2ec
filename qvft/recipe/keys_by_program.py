"""Which command reads which recipe key; overrides that a command would ignore are refused.

Training, `qvft.check` and `qvft.bench` accept all keys of a recipe. The other commands use the
recipe of a finished run, in which changing a training key would have no effect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from qvft.errors import RecipeError
from qvft.recipe.renamed_keys import current_overrides
from qvft.recipe.yaml_text import yaml_override_value

_TRAINED = "it shaped the training, which is over"
_OF_VIEWS = "views are for training; evaluation sees images as they are"
_OF_TRAINING_DATA = "it says how training goes through its data"
_NOT_ASKED = "no report is made"

READ: Mapping[str, tuple[str, ...]] = {
    "eval": (
        "name", "model",
        "data.train.format", "data.train.path", "data.train.split", "data.train.images",
        "data.train.allow_paths_outside_root", "data.train.questions", "data.train.annotations",
        "data.train.columns", "data.train.limit", "data.train.stream",
        "data.eval", "data.prompt", "data.text", "data.max_text_tokens", "data.on_bad_image",
        "data.max_image_pixels", "data.preprocessing", "data.num_workers", "data.features",
        "data.features_dtype", "data.features_limit_gb", "data.cache_images", "eval", "run",
    ),
    "merge": (
        "name", "model", "data.train", "data.eval", "data.prompt", "data.text",
        "data.max_text_tokens", "data.on_bad_image", "data.max_image_pixels",
        "data.preprocessing", "data.num_workers", "data.cache_images",
        "eval.caption", "eval.answer", "run.seed", "run.threads",
    ),
}  # fmt: skip
"""Keys that a program reads, by its name; a section stands for all of its keys. The most frequent
answer, beside which an evaluation puts a model's, is counted in the training data."""

IGNORED: Mapping[str, Mapping[str, str]] = {
    "eval": {
        "data.train.name": _OF_TRAINING_DATA,
        "data.train.texts": _OF_TRAINING_DATA,
        "data.train.captions_per_image": _OF_TRAINING_DATA,
        "data.train.shuffle_buffer": _OF_TRAINING_DATA,
        "data.augmentations_per_image": _OF_VIEWS,
        "data.augment": _OF_VIEWS,
        "trainable": _TRAINED,
        "train": _TRAINED,
        "phases": _TRAINED,
        "objectives": _TRAINED,
    },
    "merge": {
        "data.features": "features are not cached here",
        "data.features_dtype": "features are not cached here",
        "data.features_limit_gb": "features are not cached here",
        "data.augmentations_per_image": _OF_VIEWS,
        "data.augment": _OF_VIEWS,
        "trainable": _TRAINED,
        "train": _TRAINED,
        "phases": _TRAINED,
        "objectives": _TRAINED,
        "eval.batch_size": _NOT_ASKED,
        "eval.metrics": _NOT_ASKED,
        "eval.blind": _NOT_ASKED,
        "eval.report_images": _NOT_ASKED,
        "eval.rerank": _NOT_ASKED,
        "eval.classes": _NOT_ASKED,
        "eval.class_prompts": _NOT_ASKED,
        "run.dir": "the folder to write is named on the command line",
    },
}
"""Keys that a program does not read, with the reason."""

AS = {"export": "merge"}
"""Programs that read the same keys as another one."""

OF_A_RUN: Mapping[str, str] = {
    "name": "a run is where it is; --out names another folder for the report",
    "run.dir": "a run is where it is; --out names another folder for the report",
}
"""Keys that evaluation of a run also ignores."""

OF_A_MODEL: Mapping[str, str] = {
    "model.quantization": "a finished model is taken whole, as it is stored"
}
"""What evaluating a model refuses as well that is not the base of its recipe. Other keys of `model`
describe that base, and may be repeated as they were for training."""


def refuse_ignored(
    overrides: Iterable[str],
    program: str,
    *,
    also: Mapping[str, str] | None = None,
    repeats: Callable[[str], bool] = lambda _: False,
) -> None:
    """Checks that a program reads the given override keys.

    Switching something off (`null`, `false`, `none`) is always allowed: a recipe whose data is gone
    may need it.

    Args:
        overrides: `key.path=value`.
        program: of `IGNORED`, or of `AS`.
        also: further keys that it ignores, with the reason.
        repeats: whether an override says what holds anyway; such a one may be given.

    Raises:
        RecipeError: it does not read one; the message says why.
    """
    ignored = {**IGNORED[AS.get(program, program)], **(also or {})}
    for override in current_overrides(list(overrides)):
        key, _, text = override.partition("=")
        key = key.strip()
        reason = next((ignored[one] for one in ignored if covers(one, key)), None)
        if reason is None:
            continue
        value = yaml_override_value(text, where=f"command line: {key}")
        off = value is None or value is False or value == "none"
        if not off and not repeats(override):
            raise RecipeError(
                f"qvft.{program} does not read it: {reason}",
                where=f"command line: {key}",
                do="leave it out",
            )


def covers(section: str, key: str) -> bool:
    """Whether `section` is `key`, or a section that holds it."""
    return key == section or key.startswith(f"{section}.")
