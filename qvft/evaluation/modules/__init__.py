"""The metrics as modules of Hugging Face's `evaluate`, loaded from this package without network.

`load("captions").compute(predictions=[...], references=[[...], ...])`, or, where a script's path
is wanted, `evaluate.load(module_path("captions"))`. Neither uses the network.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import tempfile
from pathlib import Path
from typing import Any

from qvft.extras import require_package

NAMES = (
    "captions", "vqa_accuracy", "medical_vqa", "llava_med", "multimedeval", "retrieval",
)  # fmt: skip


def module_path(name: str) -> str:
    """The path of a module's script, for `evaluate.load`.

    `evaluate.load` copies the script into its cache of modules and reads it there, so that folder
    (`HF_MODULES_CACHE`) must be writable. `load` needs no such folder.

    Raises:
        ValueError: there is no module of that name.
    """
    if name not in NAMES:
        raise ValueError(f"there is no module {name!r}; expected one of {', '.join(NAMES)}")
    return str(Path(__file__).with_name(f"{name}.py"))


def load(name: str, config_name: str | None = None) -> Any:
    """The `evaluate.Metric` of a name; it keeps what is added to it in memory.

    Args:
        config_name: `2017` or `2021` for `vqa_accuracy`, which is 2017 without it.

    Raises:
        ValueError: there is no module of that name, or the module has no such configuration.
        MissingToolError: the package `evaluate` is not installed.
    """
    require_package("evaluate", wanted_by="qvft.evaluation.modules", install="qvft[evaluate]")
    import evaluate

    module = importlib.import_module(f"{__name__}.{Path(module_path(name)).stem}")
    metric: Any
    (metric,) = (
        found
        for _, found in inspect.getmembers(module, inspect.isclass)
        if issubclass(found, evaluate.Metric)
    )
    # `evaluate` wants a folder for every metric, though nothing is written to it.
    folder = _temporary_folder().name
    return metric(config_name=config_name, cache_dir=folder, keep_in_memory=True)


@functools.cache
def _temporary_folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="qvft-evaluate-")
