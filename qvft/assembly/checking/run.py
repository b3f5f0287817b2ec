"""From a run folder to whether it still is what its hashes say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from qvft.adapters.checkpoint import read_bridge, read_manifest
from qvft.adapters.fingerprints import READ, fingerprints
from qvft.assembly.data import read_split, read_texts, samples_hash, source_name
from qvft.assembly.evaluating.standing import Standing, read_standing
from qvft.assembly.hashes import images_hash, trained_files
from qvft.assembly.model import base_hash, base_of, versions
from qvft.assembly.runs import run_recipe
from qvft.assembly.streaming import is_streamed, stream_of
from qvft.checking.run_findings import RunFindings, Verified, compared
from qvft.data.sample import Sample
from qvft.errors import CheckpointError, UserError
from qvft.recipe.lock import LOCK_NAME, lock_hash
from qvft.recipe.schema import Recipe

_Read = Callable[[str], list[Sample]]


def check_run(folder: Path) -> RunFindings:
    """Holds files, base, data, recipe and reports of a finished run against what was recorded.

    Raises:
        CheckpointError: it is no folder of a run, or of one that has not finished.
    """
    recipe = run_recipe(folder, [])
    manifest = read_manifest(folder / "adapter")

    @cache
    def samples(which: str) -> list[Sample]:
        if recipe.data.on_bad_image == "skip":  # which ones are left out shows when they are read
            return read_split(recipe, which).samples
        return read_texts(recipe, which)

    now = versions()
    then = manifest.get("versions", {})
    return RunFindings(
        run=str(folder),
        verified=(
            compared(LOCK_NAME, manifest["recipe_sha256"], lock_hash(folder)),
            *_files(folder / "adapter", manifest),
            _base(recipe, manifest),
            *_data(recipe, manifest, samples),
            *_reports(folder, recipe, manifest, samples),
        ),
        versions={
            name: (version, now[name])
            for name, version in then.items()
            if name in now and now[name] != version
        },
    )


def _files(adapter: Path, manifest: Mapping[str, Any]) -> Iterator[Verified]:
    """The files of the adapter folder by their hashes, and the bridge by its keys."""
    recorded, found = manifest.get("files"), fingerprints(adapter)
    for name in READ:
        if recorded is not None and name in found and name not in recorded:
            yield Verified(f"adapter/{name}", "differs", None, found[name], "not of this run")
        elif name in found or name in (recorded or {}):
            yield compared(f"adapter/{name}", (recorded or {}).get(name), found.get(name))
    what = f"adapter: {len(manifest['bridge'])} weights beside LoRA"
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


def _data(recipe: Recipe, manifest: Mapping[str, Any], samples: _Read) -> Iterator[Verified]:
    """The texts that training read, by the names that it gave them."""
    names = {
        source_name(source): which
        for which, source in (("eval", recipe.data.eval), ("train", recipe.data.train))
        if source is not None
    }
    for name, recorded in manifest["data_sha256"].items():
        what = f"data {name}"
        if name not in names:
            yield compared(what, recorded, None, detail="the recipe names no such data")
            continue
        try:
            which = names[name]
            streamed = is_streamed(recipe, which)
            now = stream_of(recipe).sha256 if streamed else samples_hash(samples(which))
            yield compared(what, recorded, now)
        except UserError as error:
            yield compared(what, recorded, None, detail=error.given)


def _reports(
    folder: Path, recipe: Recipe, manifest: Mapping[str, Any], samples: _Read
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
    what: str, standing: Standing, recipe: Recipe, samples: _Read
) -> Iterator[Verified]:
    """The texts and images of an evaluation, where they are the recipe's own."""
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
    yield compared(f"{what}: data", recorded, samples_hash(asked))
    if images is not None:
        try:
            yield compared(f"{what}: images", images, images_hash(asked))
        except OSError as error:
            yield compared(f"{what}: images", images, None, detail=error.strerror or str(error))
