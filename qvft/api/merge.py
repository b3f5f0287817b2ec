"""Merges a run's adapter into its base: shared by `qvft.merge` and `qvft.Run.merge`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def merge(
    run: Path,
    out: Path,
    *,
    dtype: str | None = None,
    shard_size: str = "5GB",
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Plan, apply, write, verify; arguments, result and errors as `weights.merge.merge_run`."""
    from qvft.checking.before_torch import require_models
    from qvft.files import require_new
    from qvft.setup.run_recipe import run_recipe
    from qvft.weights.requirements import check_shard_size, require_texts

    check_shard_size(shard_size)
    recipe = run_recipe(run, list(overrides), program="merge")
    require_models(recipe)
    require_new(out, folder=True)
    require_texts(recipe)

    # All checks that need no torch are done.
    from qvft.weights.merge import merge_run

    return merge_run(run, out, dtype=dtype, shard_size=shard_size, overrides=overrides)
