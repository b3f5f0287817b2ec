"""Resolves what a user names (run, merged folder, hub id) to a model for inference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qvft.errors import CheckpointError, RecipeError
from qvft.files import expanded
from qvft.json_files import read_json
from qvft.models.model_path import TINY_ID
from qvft.recipe.keys_by_program import OF_A_MODEL, refuse_ignored
from qvft.recipe.load import load_recipe, parse_recipe
from qvft.recipe.overrides import apply_overrides
from qvft.recipe.recipe_lock import LOCK_NAME
from qvft.recipe.schema import Recipe
from qvft.recipe.source import Source
from qvft.setup.run_recipe import require_there, run_recipe
from qvft.setup.source_names import split_source

if TYPE_CHECKING:
    from qvft.setup.model import Loaded


@dataclass(frozen=True)
class ResolvedModel:
    """A model with the recipe for its inference.

    Attributes:
        name: the user's name for it.
        kind: `run`, `base` for the base of its recipe, `model` for any other.
        home: the run or model folder, None for hub ids.
    """

    name: str
    kind: str
    recipe: Recipe
    home: Path | None


def resolve_model(
    target: str,
    *,
    recipe_path: str | None = None,
    overrides: Sequence[str] = (),
    program: str | None = None,
) -> ResolvedModel:
    """Resolves `target` without loading weights.

    Args:
        target: run folder, model folder or hub id.
        recipe_path: for a model: the recipe with data, prompts and decoding.
        overrides: override the recipe, or the defaults.
        program: the command, see `recipe.keys_by_program`; keys that it does not read are refused.
            None: the overrides were for another model; only fitting ones apply.

    Raises:
        CheckpointError: a folder that is neither a run nor a model, or a recipe given for a run.
        RecipeError: an override that `program` does not read.
    """
    target = expanded(target)
    folder = Path(target)
    if (folder / LOCK_NAME).is_file():
        if recipe_path is not None:
            raise CheckpointError(
                "is a run, which has its own recipe", where=target, do="leave --recipe out"
            )
        recipe = run_recipe(folder, list(overrides), program=program)
        return ResolvedModel(target, "run", recipe, folder)
    require_there(target)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise CheckpointError(
            "neither recipe.lock.yaml nor config.json is in it",
            where=target,
            expected="a run folder or a model folder",
        )
    home = folder if folder.is_dir() else None
    is_base = False
    if recipe_path is not None:
        content = load_recipe(recipe_path, overrides).model_dump()
        is_base = _same(content["model"]["id"], target)
    else:
        content = {"name": "predict", "model": {}, **_published(target, home), **_settings(home)}
        apply_overrides(content, overrides)
    if program is not None:
        refuse_ignored(overrides, program, also={} if is_base else OF_A_MODEL)
        if home is not None and not is_base:
            _refuse_other_image_size(home, content["model"].get("image_size"), overrides)
    content["model"] = {**content["model"], "id": target, "init": "pretrained"}
    if not is_base:
        # The recipe's base is made from these; a finished model needs none.
        made = ("text_branch", "decoder", "decoder_revision", "query_tokens", "image_size")
        content["model"] |= dict.fromkeys(made)
        content["model"] |= {"family": "auto", "quantization": {"load_in_4bit": False}}
    recipe = parse_recipe(content)
    return ResolvedModel(target, "base" if is_base else "model", recipe, home)


def load_resolved(opened: ResolvedModel) -> Loaded:
    """Loads a resolved model, in evaluation mode on this process's device.

    Imports torch here, so that errors in resolving are reported without it.
    """
    from qvft.setup.model import base_model, base_of, trained_model

    if opened.kind == "run":
        return trained_model(Path(opened.name), opened.recipe)
    loaded = base_model(opened.recipe, base_of(opened.recipe))
    loaded.model.eval()
    return loaded


def _settings(home: Path | None) -> dict[str, Any]:
    """Prompts, lengths and decoding of a merged or exported folder's training; else empty."""
    names = ("merge.json", "export.json")
    paths = [path for path in (home / name for name in names) if path.is_file()] if home else []
    if not paths:
        return {}
    written = read_json(paths[0])
    data = {key: written[key] for key in ("prompt", "text", "max_text_tokens") if key in written}
    return {"data": data, "eval": written.get("decode", {})}


def _published(target: str, home: Path | None) -> dict[str, Any]:
    """Lengths for a QVision in its published layout; empty for other models."""
    if target == TINY_ID or (home and "model_type" in read_json(home / "config.json")):
        return {}  # without importing torch

    from qvft.models.base_checkpoint import require_config
    from qvft.models.qvision.published import PUBLISHED_NEW_TOKENS, is_published, published_config

    require_config(target, None)
    if not is_published(target):
        return {}
    positions = published_config(target).text_config.max_position_embeddings
    new = PUBLISHED_NEW_TOKENS
    return {
        "data": {"max_text_tokens": min(128, positions - new)},
        "eval": {"caption": {"max_new_tokens": new}, "answer": {"max_new_tokens": new}},
    }


def _refuse_other_image_size(home: Path, size: int | None, overrides: Sequence[str]) -> None:
    """Raises RecipeError if the command line sets an image size that a finished model has not."""
    named = any(one.partition("=")[0].strip() == "model.image_size" for one in overrides)
    vision = read_json(home / "config.json").get("vision_config") or {}
    vision = vision.get("vision_config", vision)  # of a whole CLIP in a QVision
    held = vision.get("image_size")  # transformers may leave out what is the class's default
    if named and held is not None and size not in (None, held):
        raise RecipeError(
            f"{size}",
            where="model.image_size",
            expected=f"{held}, as in config.json: a finished model keeps its image size",
        )


def _same(one: str, other: str) -> bool:
    """Whether two names are the same hub id or folder."""
    return one == other or (Path(one).is_dir() and Path(one).resolve() == Path(other).resolve())


def require_eval_data(opened: ResolvedModel) -> Source:
    """The data section for evaluation; of a list as `split_source`.

    Raises:
        RecipeError: a model without a recipe, or a recipe without evaluation data.
    """
    source = None
    if opened.recipe.data.eval is not None:
        source = split_source(opened.recipe, "eval")
    if source is None and opened.kind == "model" and opened.home is None:
        raise RecipeError(
            "is no folder here, and taken for a hub id no recipe says what to evaluate it on",
            where=opened.name,
            do="check the path; for a hub id, give a recipe with --recipe, or add "
            "data.eval.path=YOUR_DATA",
        )
    if source is None:
        raise RecipeError(
            "is not set",
            where="data.eval",
            do="give a recipe with --recipe, or add data.eval.path=YOUR_DATA",
        )
    return source
