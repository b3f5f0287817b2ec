"""Files of a merged model, an export or a run that may go to the hub, verified by their hashes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NoReturn

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from qvft.adapters.manifest import MANIFEST, read_manifest, require_untouched
from qvft.errors import CheckpointError, UserError
from qvft.files import read_text, sha256_file
from qvft.json_files import json_text, read_json
from qvft.models.model_path import TINY_ID
from qvft.recipe.recipe_lock import LOCK_NAME
from qvft.recipe.secrets import secret_in
from qvft.setup.run_recipe import run_recipe
from qvft.weights.card import SAMPLES_BEGIN, SAMPLES_END, on_hub
from qvft.weights.card_text import named

CARD = "README.md"
_RECORDS = ("merge.json", "export.json")
_SAMPLES = re.compile(f"{SAMPLES_BEGIN}.*?(?:{SAMPLES_END}|\\Z)\n?", re.S)
_MODEL_ID = re.compile(r'^model_id = ".*"', re.M)
_OF_REPORTS = ("report.json", "report.html", "predictions.jsonl")

Files = dict[str, Path | bytes]


def require_repo_id(repo: str) -> None:
    """Raises UserError if `repo` is not OWNER/NAME in letters, digits, `-`, `_` and `.`."""
    try:
        validate_repo_id(repo)
        fits = repo.count("/") == 1
    except HFValidationError:
        fits = False
    if not fits:
        raise UserError(f'"{repo}"', where="OWNER/NAME", expected="a hub id such as anna/scans")


def files_to_push(folder: Path, repo: str, *, with_samples: bool = False) -> Files:
    """Files by their name in the repository: paths, or content where it differs from the folder's.

    The card gets the repository's id; row ids, paths of this machine and, unless `with_samples`,
    samples are left out. Raises CheckpointError for a folder that qvft did not write or prove.
    """
    record = next((name for name in _RECORDS if (folder / name).is_file()), MANIFEST)
    if record != MANIFEST:
        files = _proven(folder, record)
    else:
        is_adapter = (folder / MANIFEST).is_file() and (folder.parent / LOCK_NAME).is_file()
        run_dir = folder.parent if is_adapter else folder
        if not (run_dir / LOCK_NAME).is_file():
            missing = f"has neither {', '.join(_RECORDS)} nor {LOCK_NAME}"
            _refuse(missing, folder, "name a folder of qvft merge or qvft export, or a run")
        files = _adapter(run_dir, repo, with_samples=with_samples)
    text = _MODEL_ID.sub(f'model_id = "{repo}"', _text(files[CARD]))
    files[CARD] = (text if with_samples else _SAMPLES.sub("", text)).encode()
    files[record] = json_text(_shareable(json.loads(_text(files[record]))), indent=2).encode()
    for name in (CARD, record):
        if kind := secret_in(_text(files[name])):
            _refuse(f"holds {kind}", folder / name, "remove it")
    return dict(sorted(files.items()))


def _proven(folder: Path, record: str) -> Files:
    """Files of a merged or exported folder, each as its record says; the card may be edited."""
    again = "merge or export the run again"
    content = read_json(folder / record)
    hashes = content.get("files") if isinstance(content, dict) else None
    if not isinstance(hashes, dict) or not content.get("verification"):
        _refuse("holds no proof: `verification` and `files`", folder / record, again)
    if content.get("form") == "peft":
        _refuse_local_base(str(content["base"]["id"]), folder)
    known = {*hashes, record, CARD}
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))}
    found = {name: path for name, path in found.items() if path.is_symlink() or not path.is_dir()}
    # The reports of this folder's own evaluations stay here: they hold texts of the data.
    found = {name: path for name, path in found.items() if not name.startswith("eval/")}
    other = [name for name, path in found.items() if name not in known or path.is_symlink()]
    if other:
        listed = ", ".join(other[:5])
        _refuse(f"holds {len(other)} files that are not in {record}: {listed}", folder, "move them")
    for name in sorted(known - set(found)):
        _refuse(f"has no {name}", folder, again)
    for name, expected in hashes.items():
        if name != CARD and sha256_file(found[name]) != expected:
            _refuse(f"is not what was verified: its hash is not in {record}", found[name], again)
    return {**found}


def _adapter(run_dir: Path, repo: str, *, with_samples: bool) -> Files:
    """The adapter of a run with a new card; with samples, also its reports."""
    from qvft.setup.model import base_of
    from qvft.weights.card import run_card
    from qvft.weights.export import require_plain_base

    recipe = run_recipe(run_dir, [])
    adapter = run_dir / "adapter"
    manifest = read_manifest(adapter)
    if "files" not in manifest:
        _refuse("its manifest has no hashes to verify", adapter, "push a merged model")
    require_untouched(adapter, manifest)
    _refuse_local_base(recipe.model.id, run_dir)
    base = base_of(recipe)
    require_plain_base(run_dir, base)
    files: Files = {name: adapter / name for name in (*manifest["files"], MANIFEST)}
    files[CARD] = run_card(run_dir, recipe, base, folder=repo).encode()
    reports = [path for path in sorted(run_dir.glob("eval/*/*")) if path.name in _OF_REPORTS]
    if with_samples:
        files |= {path.relative_to(run_dir).as_posix(): path for path in reports}
    return files


def _refuse_local_base(base_id: str, where: Path) -> None:
    """Raises CheckpointError for an adapter whose base nobody else has."""
    if base_id != TINY_ID and not on_hub(base_id):
        given = f"an adapter for {base_id}, a folder that is not on the hub"
        _refuse(given, where, "push the folder of qvft merge, which is the whole model")


def _refuse(given: str, where: Path, do: str) -> NoReturn:
    raise CheckpointError(given, where=str(where), do=do)


def _text(content: Path | bytes) -> str:
    return content.decode() if isinstance(content, bytes) else read_text(content)


def _shareable(value: Any) -> Any:
    """A record without this machine's folders, ids of the data's rows and the card's old hash."""
    if isinstance(value, list):
        return [_shareable(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    return {
        key: named(inner) if key in ("id", "path") and inner else _shareable(inner)
        for key, inner in value.items()
        if key not in ("row", CARD)
    }
