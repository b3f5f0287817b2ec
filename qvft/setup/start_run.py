"""Finds and checks the run that a recipe starts from (`train.from`). Does not import torch."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from qvft.adapters.lora_config import CONFIG, read_lora_config, require_fitting_lora
from qvft.adapters.manifest import MANIFEST, fingerprints, read_manifest
from qvft.errors import CheckpointError, RecipeError
from qvft.json_files import sha256_json
from qvft.models.families import FAMILIES, add_family
from qvft.recipe.load import LOCK_NAME
from qvft.recipe.phases import PhasePlan, lora_of_phases, phase_plans
from qvft.recipe.schema import Recipe
from qvft.recipe.trainable import Lora

_SAME_LORA = ("r", "lora_alpha", "use_dora", "use_rslora")
"""LoRA settings that the weights depend on; dropout may change."""
_MERGE = "merge that run (qvft merge) and set model.id to the merged folder"


@dataclass(frozen=True)
class StartRun:
    """The adapter folder that a run starts from.

    Attributes:
        name: as the recipe names it.
        folder: folder of its weights.
        run: its run folder; None for a checkpoint, or an adapter folder elsewhere.
        lora: its LoRA settings; empty without LoRA.
        lora_layers: full names of its layers with LoRA.
    """

    name: str
    folder: Path
    run: Path | None
    manifest: Mapping[str, Any]
    lora: Mapping[str, Any]
    lora_layers: frozenset[str]

    @property
    def key(self) -> str:
        """The recipe key with its value, for messages."""
        return f"train.from={self.name}"

    @cached_property
    def facts(self) -> dict[str, str]:
        """What manifests, reports and model cards record of it; reads its files."""
        return {
            "path": self.name,
            "recipe_sha256": self.manifest["recipe_sha256"],
            "weights_sha256": sha256_json(fingerprints(self.folder)),
        }

    def lora_parts(self) -> set[str]:
        """Components with LoRA layers."""
        return {FAMILIES[self.manifest["family"]].part(name) for name in self.lora_layers}

    def bridge_weights(self) -> dict[str, int]:
        """Number of the weights trained in full, per component."""
        found: dict[str, int] = {}
        component = FAMILIES[self.manifest["family"]].component
        for name, entry in self.manifest["bridge"].items():
            part = component(name)
            found[part] = found.get(part, 0) + math.prod(entry["shape"])
        return found


def start_run(recipe: Recipe) -> StartRun | None:
    """The run that `train.from` names; None without.

    Raises:
        CheckpointError: there is no such folder, it has no finished adapter, or it is damaged.
        RecipeError: it cannot continue as this recipe says.
    """
    name = recipe.train.from_
    if name is None:
        return None
    folder, run = _adapter_folder(recipe, Path(name))
    manifest = read_manifest(folder)
    lora: dict[str, Any] = {}
    layers: set[str] = set()
    if (folder / CONFIG).is_file():
        lora, layers = read_lora_config(folder), require_fitting_lora(folder)
    names = frozenset(layer.removeprefix("base_model.model.") for layer in layers)
    start = StartRun(name, folder, run, manifest, lora, names)
    _require_family(recipe, start)
    _require_same_lora(start, phase_plans(recipe))
    _require_heads(recipe, start)
    return start


def _adapter_folder(recipe: Recipe, folder: Path) -> tuple[Path, Path | None]:
    """The folder of the weights that `train.from` names, and its run folder, if it named that."""
    where, expected = f"train.from={folder}", "a run folder, a checkpoint, or an adapter folder"
    if not folder.is_dir():
        raise CheckpointError("no such folder", where=where, expected=expected)
    own = Path(recipe.run_dir).resolve()
    if own == folder.resolve() or own in folder.resolve().parents:
        raise RecipeError(
            "is this run's own folder",
            where=where,
            do="choose another folder for this run with name or run.dir",
        )
    if (folder / MANIFEST).is_file():
        return folder, None
    if not (folder / LOCK_NAME).is_file():
        is_model = (folder / "config.json").is_file()
        raise CheckpointError(
            f"neither {LOCK_NAME} nor {MANIFEST} is in it",
            where=where,
            expected=expected,
            do="it is a model folder: name it with model.id instead" if is_model else None,
        )
    if not (folder / "adapter" / MANIFEST).is_file():
        raise CheckpointError(
            "training has not finished: there is no adapter",
            where=where,
            do="finish it with train.resume=auto, or name one of its checkpoints",
        )
    return folder / "adapter", folder


def _require_family(recipe: Recipe, start: StartRun) -> None:
    trained, here = start.manifest["family"], recipe.model.family
    if here != "auto":
        here = add_family(here)
    if trained not in FAMILIES or here not in ("auto", trained):
        raise RecipeError(
            f"a run of family {trained}",
            where=start.key,
            expected=f"model.family {here}" if trained in FAMILIES else "a family that is known",
        )


def _require_same_lora(start: StartRun, plans: Collection[PhasePlan]) -> None:
    """Checks that the LoRA layers of the run can be trained, or kept, as the phases say."""

    def refuse(given: str, key: str, expected: str) -> NoReturn:
        raise RecipeError(given, where=f"trainable.{key}", expected=expected, do=_MERGE)

    found, theirs = lora_of_phases(list(plans)), start.lora_parts()
    asked = set() if found is None else set(found[1])
    full_there = start.bridge_weights()
    for part in sorted(asked):
        if full_there.get(part):
            given = "lora, but the run it starts from trained it in full"
            refuse(given, part, f"full or frozen with {start.key}")
    for part in sorted(theirs):
        if any(getattr(plan.trainable, part) == "full" for plan in plans):
            given = "full, but the run it starts from has LoRA layers there"
            refuse(given, part, f"lora or frozen with {start.key}")
    if not start.lora or found is None:
        return
    if asked != theirs:
        part = sorted(asked ^ theirs)[0]
        expected = f"LoRA on {', '.join(sorted(theirs))}, as in {start.key}"
        refuse("lora" if part in asked else "without lora", part, expected)
    settings = found[0].lora.model_dump()
    for key in _SAME_LORA:
        there = start.lora.get(key, Lora.model_fields[key].default)
        if settings[key] != there:
            refuse(f"{settings[key]}", f"lora.{key}", f"{there}, as in {start.key}")


def _require_heads(recipe: Recipe, start: StartRun) -> None:
    """Checks that alignment heads of the run fit the recipe's objectives, if both have some."""
    entry = start.manifest.get("alignment")
    asked = recipe.objectives.alignment
    if entry is None or not asked:
        return
    if entry["text_generation"] != ("itg" in asked):
        has = "has" if entry["text_generation"] else "has not"
        raise RecipeError(
            f"{asked.get('itg', 0)}",
            where="objectives.itg",
            expected=f"0 or not as in {start.key}, which {has} been trained with it",
        )
