"""Files of a merged model, an export or a run that may go to the hub, verified by their hashes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from qvft.adapters.manifest import MANIFEST, read_manifest, require_untouched
from qvft.errors import CheckpointError, UserError
from qvft.files import read_text, sha256_file
from qvft.json_files import json_text, read_json
from qvft.models.model_path import TINY_ID
from qvft.recipe.recipe_lock import LOCK_NAME
from qvft.recipe.secrets import secret_in
from qvft.weights.card import SAMPLES_BEGIN, SAMPLES_END
from qvft.weights.card_metadata import on_hub
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
    samples are left out.

    Raises:
        CheckpointError: nothing that qvft wrote, without proof, changed since, with other files
            beside it, or with a secret in its card.
    """
    if not folder.is_dir():
        raise CheckpointError("no such folder", where=str(folder))
    record = next((name for name in _RECORDS if (folder / name).is_file()), None)
    if record is not None:
        files = _proven(folder, record)
    else:
        is_adapter = (folder / MANIFEST).is_file() and (folder.parent / LOCK_NAME).is_file()
        run_dir = folder.parent if is_adapter else folder
        if not (run_dir / LOCK_NAME).is_file():
            raise CheckpointError(
                "neither merge.json, export.json nor recipe.lock.yaml is in it",
                where=str(folder),
                expected="a folder of qvft merge or qvft export, or a run",
            )
        files = _adapter(run_dir, name=repo.partition("/")[2], with_samples=with_samples)
    card = files[CARD]
    text = card.decode() if isinstance(card, bytes) else read_text(card)
    text = _MODEL_ID.sub(f'model_id = "{repo}"', text)
    files[CARD] = (text if with_samples else _SAMPLES.sub("", text)).encode()
    if record is not None:
        files[record] = _record_for_others(read_json(folder / record)).encode()
    for name, content in files.items():
        kind = secret_in(content.decode()) if isinstance(content, bytes) else None
        if kind is not None:
            raise CheckpointError(f"holds {kind}", where=str(folder / name), do="remove it")
    return dict(sorted(files.items()))


def _proven(folder: Path, record: str) -> Files:
    """Files of a merged or exported folder, each as its record says; the card may be edited."""
    content = read_json(folder / record)
    hashes = content.get("files") if isinstance(content, dict) else None
    if not isinstance(hashes, dict) or not content.get("verification") or not hashes:
        raise CheckpointError(
            "holds no proof: `verification` and `files`",
            where=str(folder / record),
            do="merge or export the run again",
        )
    _refuse_local_base(content, where=str(folder))
    found = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or not path.is_dir()
    }
    other = sorted(set(found) - set(hashes) - {record, CARD})
    if other:
        raise CheckpointError(
            f"holds {len(other)} files that {record} does not list: {', '.join(other[:5])}",
            where=str(folder),
            do="move them elsewhere",
        )
    for name, expected in hashes.items():
        path = found.get(name)
        if path is None or path.is_symlink():
            raise CheckpointError(
                f"no file {name}, which {record} lists", where=str(folder), do="write it again"
            )
        if name != CARD and sha256_file(path) != expected:
            raise CheckpointError(
                f"is not what was verified: its hash is not that in {record}",
                where=str(path),
                do="merge or export the run again",
            )
    if CARD not in found:
        raise CheckpointError(
            f"has no {CARD}", where=str(folder), do="qvft merge and qvft export --to peft write one"
        )
    return {name: found[name] for name in {*hashes, record, CARD}}


def _adapter(run_dir: Path, *, name: str, with_samples: bool) -> Files:
    """The adapter of a run with a new card; with samples, also its reports."""
    from qvft.adapters.manifest import READ
    from qvft.setup.model import base_of
    from qvft.setup.run_recipe import run_recipe
    from qvft.weights.adapter_card import require_plain_base, run_card

    recipe = run_recipe(run_dir, [])
    adapter = run_dir / "adapter"
    manifest = read_manifest(adapter)
    if "files" not in manifest:
        raise CheckpointError(
            "its manifest has no hashes to verify", where=str(adapter), do="push a merged model"
        )
    require_untouched(adapter, manifest)
    _refuse_local_base({"form": "peft", "base": {"id": recipe.model.id}}, where=str(run_dir))
    base = base_of(recipe)
    require_plain_base(run_dir, base)
    files: Files = {file: adapter / file for file in READ if (adapter / file).is_file()}
    files |= {
        MANIFEST: adapter / MANIFEST,
        CARD: run_card(run_dir, recipe, base, folder=name).encode(),
    }
    if with_samples:
        files |= {
            path.relative_to(run_dir).as_posix(): path
            for path in sorted(run_dir.glob("eval/*/*"))
            if path.name in _OF_REPORTS and path.is_file() and not path.is_symlink()
        }
    return files


def _refuse_local_base(record: dict[str, Any], *, where: str) -> None:
    """Raises CheckpointError for an adapter whose base nobody else has."""
    base_id = str((record.get("base") or {}).get("id"))
    if record.get("form") == "peft" and base_id != TINY_ID and not on_hub(base_id):
        raise CheckpointError(
            f"an adapter for {base_id}, a folder that is not on the hub",
            where=where,
            do="push the folder of qvft merge, which is the whole model",
        )


def _record_for_others(record: dict[str, Any]) -> str:
    """The record without this machine's folders and without ids of the data's rows."""

    def shareable(value: Any) -> Any:
        if isinstance(value, list):
            return [shareable(inner) for inner in value]
        if not isinstance(value, dict):
            return value
        return {
            key: named(inner) if key in ("id", "path") and inner else shareable(inner)
            for key, inner in value.items()
            if key != "row"
        }

    files = {name: digest for name, digest in record["files"].items() if name != CARD}
    return json_text({**shareable(record), "files": files}, indent=2) + "\n"
