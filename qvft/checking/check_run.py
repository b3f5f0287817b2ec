"""`qvft check RUN`: compares a run's files with the hashes in its manifest."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from qvft.adapters.checkpoint import read_bridge
from qvft.adapters.manifest import READ, fingerprints, read_manifest
from qvft.errors import CheckpointError, UserError, VerificationError
from qvft.evaluation.stored_evaluation import StoredEvaluation, read_evaluation
from qvft.recipe.recipe_lock import LOCK_NAME, lock_hash, read_lock
from qvft.recipe.schema import Recipe
from qvft.setup.data import images_hash, samples_hash
from qvft.setup.model import base_of
from qvft.setup.provenance import base_hash, versions
from qvft.setup.query_similarity import collapse_warning
from qvft.setup.run_recipe import run_recipe
from qvft.setup.source_names import source_name
from qvft.setup.start_run import start_run
from qvft.training.recorded_data import Read, manifest_folder, reader, recorded_data

_SHOWN = 12
"""Displayed characters of a hash."""
_STYLES = {"ok": "green", "not recorded": "dim"}

State = Literal["ok", "differs", "missing", "not recorded"]


@dataclass(frozen=True)
class Verified:
    """Result of one comparison of SHA-256 (hexadecimal) or counts.

    Attributes:
        what: a file, or the content of a hash.
        state: `missing`: cannot be read; `not recorded`: nothing to compare with.
    """

    what: str
    state: State
    recorded: str | None = None
    found: str | None = None
    detail: str = ""


def _compared(what: str, recorded: str | None, found: str | None, *, detail: str = "") -> Verified:
    """Result of comparing two values, either of which may be absent."""
    if recorded is None:
        return Verified(what, "not recorded", None, found, detail or "written by an older version")
    if found is None:
        return Verified(what, "missing", recorded, None, detail)
    return Verified(what, "ok" if recorded == found else "differs", recorded, found, detail)


@dataclass(frozen=True)
class RunFindings:
    """Results of the check of a run folder; `versions` are (then, now) per library with a changed
    version, `warnings` those of the run's reports.
    """

    run: str
    verified: tuple[Verified, ...]
    versions: Mapping[str, tuple[str, str]]
    warnings: tuple[str, ...] = ()

    def raise_if_failed(self) -> None:
        """Raises VerificationError if something differs or is missing."""
        failed = [one.what for one in self.verified if one.state in ("differs", "missing")]
        if failed:
            raise VerificationError(
                f"{len(failed)} of {len(self.verified)} do not match: {', '.join(failed)}"
            )


def check_run(folder: Path) -> RunFindings:
    """Compares files, base, data, recipe and reports of a run with what was recorded; of an
    unfinished run with its newest checkpoint. Raises CheckpointError if there is none.
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
            _compared(LOCK_NAME, manifest["recipe_sha256"], lock_hash(folder)),
            *_files(newest, manifest, name=newest.relative_to(folder).as_posix()),
            _base(recipe, manifest),
            *_start(recipe, manifest),
            *(
                _compared(one.what, one.recorded, one.found, detail=one.problem)
                for one in recorded_data(recipe, manifest, samples)
            ),
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
            similarity = read_evaluation(path.parent).content.get("query_similarity")
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
            yield _compared(f"{name}/{file}", (recorded or {}).get(file), found.get(file))
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
        found = base_hash(recipe, base_of(recipe), recorded=recorded)
        return _compared(what, recorded, found)
    except UserError as error:
        return _compared(what, recorded, None, detail=error.given)


def _start(recipe: Recipe, manifest: Mapping[str, Any]) -> Iterator[Verified]:
    """The run it started from, which a finished run does not need."""
    recorded = manifest.get("started_from")
    if recorded is None:
        return
    what = f"start {recorded['path']}"
    try:
        start = start_run(recipe)
    except UserError as error:
        yield Verified(what, "not recorded", recorded["weights_sha256"], None, error.given)
        return
    found = start.facts["weights_sha256"] if start is not None else None
    yield _compared(what, recorded["weights_sha256"], found)


def _reports(
    folder: Path, recipe: Recipe, manifest: Mapping[str, Any], samples: Read
) -> Iterator[Verified]:
    trained = fingerprints(folder / "adapter")
    for path in sorted(folder.glob("eval/*/report.json")):
        what = f"eval/{path.parent.name}"
        try:
            stored = read_evaluation(path.parent)
        except UserError as error:
            yield Verified(what, "differs", detail=error.given)
            continue
        model = stored.content.get("model") or {}
        for name in sorted(trained.keys() | (model.get("adapter_sha256") or {}).keys()):
            recorded = (model.get("adapter_sha256") or {}).get(name)
            yield _compared(f"{what}: adapter/{name}", recorded, trained.get(name))
        for part, key in (("recipe", "recipe_sha256"), ("base", "base_weights_sha256")):
            yield _compared(f"{what}: {part}", model.get(key), manifest[key])
        yield from _report_data(what, stored, recipe, samples)


def _report_data(
    what: str, stored: StoredEvaluation, recipe: Recipe, samples: Read
) -> Iterator[Verified]:
    """Compares the texts and images of an evaluation, if they are the recipe's."""
    data = stored.content.get("data") or {}
    recorded, images = data.get("sha256"), data.get("images_sha256")
    named = {source_name(source): (key, source) for key, source in recipe.data.sources("eval")}
    if recorded is None:
        yield _compared(f"{what}: data", None, None)
        return
    if data.get("name") not in named:
        yield Verified(f"{what}: data", "not recorded", recorded, None, "not the recipe's own data")
        return
    key, source = named[data["name"]]
    try:
        asked = samples(key)
    except UserError as error:
        yield _compared(f"{what}: data", recorded, None, detail=error.given)
        return
    if len(asked) != data.get("images"):
        detail = f"{data.get('images')} images were asked about, the recipe's data has {len(asked)}"
        yield Verified(f"{what}: data", "not recorded", recorded, None, detail)
        return
    found, path = samples_hash(asked), data.get("path")
    another = path is not None and os.path.abspath(path) != os.path.abspath(source.path or "")
    if recorded != found and another:
        detail = f"another file of that name, {path}"
        yield Verified(f"{what}: data", "not recorded", recorded, None, detail)
        return
    yield _compared(f"{what}: data", recorded, found)
    if images is not None:
        try:
            yield _compared(f"{what}: images", images, images_hash(asked))
        except OSError as error:
            yield _compared(f"{what}: images", images, None, detail=error.strerror or str(error))


def show_run(findings: RunFindings, console: Console) -> None:
    """Prints one line per check, and the libraries that have changed."""
    table = Table(title=f"run {findings.run}", title_justify="left")
    for column in ("what", "state", "recorded", "found", ""):
        table.add_column(column, overflow="fold")
    for one in findings.verified:
        state = Text(one.state, _STYLES.get(one.state, "bold red"))
        table.add_row(one.what, state, _short(one.recorded), _short(one.found), one.detail)
    console.print(table)
    for warning in findings.warnings:
        console.print(Text.assemble(("warning  ", "bold yellow"), warning))
    for name, (then, now) in findings.versions.items():
        console.print(Text.assemble(("note     ", "bold"), f"{name} was {then}, is {now} here"))


def _short(value: str | None) -> str:
    return "" if value is None else value[:_SHOWN]
