"""`qvft check RUN`: compares a run's files with the hashes in its manifest."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from qvft.adapters.checkpoint import read_bridge
from qvft.adapters.manifest import READ, fingerprints, read_manifest
from qvft.checking.run_findings import RunFindings, Verified, compared
from qvft.errors import CheckpointError, UserError
from qvft.evaluation.stored_evaluation import StoredEvaluation, read_standing
from qvft.recipe.recipe_lock import LOCK_NAME, lock_hash, read_lock
from qvft.recipe.schema import Recipe
from qvft.setup.data import samples_hash, source_name
from qvft.setup.hashes import images_hash, trained_files
from qvft.setup.model import base_hash, base_of, versions
from qvft.setup.query_similarity import collapse_warning
from qvft.setup.run_recipe import run_recipe
from qvft.training.recorded_data import Read, manifest_folder, reader, recorded_data


def check_run(folder: Path) -> RunFindings:
    """Compares files, base, data, recipe and reports of a run with what was recorded.

    For an unfinished run, uses the newest checkpoint.

    Raises:
        CheckpointError: it is not a run folder, or has no checkpoint.
    """
    newest = manifest_folder(folder)
    if newest is None or newest == folder / "adapter":
        recipe, newest = run_recipe(folder, []), folder / "adapter"
    else:
        recipe = read_lock(folder)
    manifest = read_manifest(newest)
    samples = reader(recipe)
    now = versions()
    then = manifest.get("versions", {})
    finished = newest == folder / "adapter"
    return RunFindings(
        run=str(folder),
        verified=(
            compared(LOCK_NAME, manifest["recipe_sha256"], lock_hash(folder)),
            *_files(newest, manifest, name=newest.relative_to(folder).as_posix()),
            _base(recipe, manifest),
            *_data(recipe, manifest, samples),
            *(_reports(folder, recipe, manifest, samples) if finished else ()),
        ),
        versions={
            name: (version, now[name])
            for name, version in then.items()
            if name in now and now[name] != version
        },
        warnings=tuple(_warnings(folder)),
    )


def _warnings(folder: Path) -> Iterator[str]:
    """Warnings of the reports about collapsed query tokens."""
    for path in sorted(folder.glob("eval/*/report.json")):
        try:
            similarity = read_standing(path.parent).content.get("query_similarity")
        except UserError:
            continue  # reported as a difference
        if isinstance(similarity, float):
            yield from (
                f"eval/{path.parent.name}: {sentence}" for sentence in collapse_warning(similarity)
            )


def _files(adapter: Path, manifest: Mapping[str, Any], *, name: str) -> Iterator[Verified]:
    """Compares the adapter folder's files by hash, and the bridge by its keys."""
    recorded, found = manifest.get("files"), fingerprints(adapter)
    for file in READ:
        if recorded is not None and file in found and file not in recorded:
            yield Verified(f"{name}/{file}", "differs", None, found[file], "not of this run")
        elif file in found or file in (recorded or {}):
            yield compared(f"{name}/{file}", (recorded or {}).get(file), found.get(file))
    what = f"{name}: {len(manifest['bridge'])} weights beside LoRA"
    try:
        read_bridge(adapter, dict(manifest))
    except CheckpointError as error:
        yield Verified(what, "differs", detail=error.given)
    else:
        yield Verified(what, "ok")


def _base(recipe: Recipe, manifest: Mapping[str, Any]) -> Verified:
    what, recorded = f"base {manifest['base_id']}", manifest["base_weights_sha256"]
    try:
        return compared(what, recorded, base_hash(recipe, base_of(recipe)))
    except UserError as error:
        return compared(what, recorded, None, detail=error.given)


def _data(recipe: Recipe, manifest: Mapping[str, Any], samples: Read) -> Iterator[Verified]:
    """Compares the texts and images of training."""
    for one in recorded_data(recipe, manifest, samples):
        yield compared(one.what, one.recorded, one.found, detail=one.problem)


def _reports(
    folder: Path, recipe: Recipe, manifest: Mapping[str, Any], samples: Read
) -> Iterator[Verified]:
    trained = trained_files(folder / "adapter")
    for path in sorted(folder.glob("eval/*/report.json")):
        what = f"eval/{path.parent.name}"
        try:
            standing = read_standing(path.parent)
        except UserError as error:
            yield Verified(what, "differs", detail=error.given)
            continue
        model = standing.content.get("model") or {}
        for name in sorted(trained.keys() | (model.get("adapter_sha256") or {}).keys()):
            recorded = (model.get("adapter_sha256") or {}).get(name)
            yield compared(f"{what}: adapter/{name}", recorded, trained.get(name))
        for part, key in (("recipe", "recipe_sha256"), ("base", "base_weights_sha256")):
            yield compared(f"{what}: {part}", model.get(key), manifest[key])
        yield from _report_data(what, standing, recipe, samples)


def _report_data(
    what: str, standing: StoredEvaluation, recipe: Recipe, samples: Read
) -> Iterator[Verified]:
    """Compares the texts and images of an evaluation, if they are the recipe's."""
    data = standing.content.get("data") or {}
    recorded, images = data.get("sha256"), data.get("images_sha256")
    source = recipe.data.eval
    if recorded is None:
        yield compared(f"{what}: data", None, None)
        return
    if source is None or source_name(source) != data.get("name"):
        yield Verified(f"{what}: data", "not recorded", recorded, None, "not the recipe's own data")
        return
    try:
        asked = samples("eval")
    except UserError as error:
        yield compared(f"{what}: data", recorded, None, detail=error.given)
        return
    if len(asked) != data.get("images"):
        detail = f"{data.get('images')} images were asked about, the recipe's data has {len(asked)}"
        yield Verified(f"{what}: data", "not recorded", recorded, None, detail)
        return
    found, path = samples_hash(asked), data.get("path")
    if recorded != found and path is not None and not _same_path(path, source.path):
        detail = f"another file of that name, {path}"
        yield Verified(f"{what}: data", "not recorded", recorded, None, detail)
        return
    yield compared(f"{what}: data", recorded, found)
    if images is not None:
        try:
            yield compared(f"{what}: images", images, images_hash(asked))
        except OSError as error:
            yield compared(f"{what}: images", images, None, detail=error.strerror or str(error))


def _same_path(one: str, other: str | None) -> bool:
    return other is not None and os.path.abspath(one) == os.path.abspath(other)
