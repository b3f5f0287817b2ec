"""Mixing of training sources: texts of each in an epoch, by weights or a temperature.

Source: `datasets.interleave_datasets` (names and meaning of `stopping_strategy`); Raffel et al.,
"Exploring the Limits of Transfer Learning", 2020, section 3.5.2 (temperature-scaled mixing).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from qvft.data.rows import Row
from qvft.errors import RecipeError
from qvft.recipe.schema import Recipe
from qvft.setup.source_names import source_name


def quotas_of(recipe: Recipe, sizes: Mapping[str, int]) -> dict[str, int]:
    """Texts of each source in an epoch.

    Args:
        sizes: texts by source that a phase uses; sources without any are left out.

    Raises:
        RecipeError: a weight gives a source no text.
    """
    data = recipe.data
    sources = {source_name(source): (key, source) for key, source in data.sources("train")}
    if data.mixing_temperature is not None:
        weights = {name: size ** (1 / data.mixing_temperature) for name, size in sizes.items()}
    else:
        weights = {name: sources[name][1].weight or 0.0 for name in sizes if name in sources}
    if not data.lists("train") or not all(weights.values()):
        return dict(sizes)
    total = sum(weights.values())
    # Rounded, so that 900 texts with a share of 0.9 make an epoch of 1000, not of 999.
    lengths = [round(size * total / weights[name], 6) for name, size in sizes.items()]
    shortest = data.stopping_strategy == "first_exhausted"
    length = math.floor(min(lengths)) if shortest else math.ceil(max(lengths))
    exact = {name: round(weight * length / total, 6) for name, weight in weights.items()}
    quotas = {name: math.floor(share) for name, share in exact.items()}
    most_missing = sorted(exact, key=lambda name: quotas[name] - exact[name])
    for name in most_missing[: length - sum(quotas.values())]:
        quotas[name] += 1
    if none := [name for name, quota in quotas.items() if not quota]:
        raise RecipeError(
            f"{none[0]} has none of the {length} texts of an epoch",
            where=f"data.{sources[none[0]][0]}.weight",
            do="raise it, or remove the source",
        )
    return quotas


def source_shares(recipe: Recipe, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Of each source in a list, among a phase's rows: `name`, number of `images` and `texts`,
    `share` of the texts of an epoch, and `prompt`, its own.
    """
    sizes = Counter(row.sample.origin.name for row in rows)
    images = Counter(name for name, _ in {(r.sample.origin.name, r.sample.id) for r in rows})
    quotas = quotas_of(recipe, sizes)
    total = sum(quotas.values())
    return [
        {
            "name": (name := source_name(source)),
            "images": images[name],
            "texts": sizes[name],
            "share": quotas.get(name, 0) / total,
            "prompt": source.prompt.model_dump(exclude_none=True),
        }
        for _, source in recipe.data.sources("train")
    ]


def share_text(one: Mapping[str, Any]) -> str:
    """An entry of `source_shares` in words."""
    prompts = "".join(f", {kind} prompt {text!r}" for kind, text in one["prompt"].items())
    return (
        f"{one['name']}: {one['images']:,} images, {one['texts']:,} texts, "
        f"{100 * one['share']:.1f} % of an epoch{prompts}"
    )


def unseen_texts(shares: Sequence[Mapping[str, Any]], texts: float) -> list[str]:
    """Warnings about sources of which training shows less than half.

    Args:
        shares: from `source_shares`.
        texts: texts that training shows of all sources; 0: each comes in every epoch.
    """
    return [
        f"{one['name']}: training shows {one['share'] * texts:,.0f} of its {one['texts']:,} texts, "
        f"and checks and encodes all of its {one['images']:,} images; a limit in its source "
        "saves that"
        for one in shares
        if texts and 2 * one["share"] * texts < one["texts"]
    ]
