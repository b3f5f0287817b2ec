"""The manifest of an adapter folder: which fields there must be, and of which kind.

Nothing here imports torch, unless the manifest is of a QVision that is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qvft.adapters.fingerprints import MANIFEST, READ
from qvft.errors import CheckpointError

FORMAT = 1
_OF_OLD_QVISION = "qformer.text_reader."
"""What no Q-Former has but the one that qvft 0.1.0 gave QVision."""
_KINDS: Mapping[str, type] = {
    "base_id": str,
    "base_weights_sha256": str,
    "family": str,
    "recipe_sha256": str,
    "data_sha256": dict,
    "bridge": dict,
}
_ALIGNMENT: Mapping[str, type] = {
    "objectives": list,
    "tokenizer": str,
    "max_text_tokens": int,
    "vocab_size": int,
    "pad_id": int,
    "positions": int,
    "embedding_width": int,
    "text_generation": bool,
    "weights": dict,
}


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an adapter folder.

    Raises:
        CheckpointError: there is none, it is damaged, or of a later version.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"no {MANIFEST}", where=str(folder), expected="an adapter folder of qvft.train"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "msg", None) or str(error)
        raise CheckpointError(f"damaged: {reason}", where=str(path)) from error
    require_form(manifest, where=str(path))
    return manifest


def alignment_entry(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """What the manifest says of the alignment heads: `Alignment.facts` and their `weights`.

    Raises:
        CheckpointError: there are none.
    """
    if "alignment" not in manifest:
        raise CheckpointError(
            "has no alignment heads",
            where=str(folder),
            expected="a run with itc, itm or itg among its objectives",
        )
    return manifest["alignment"]


def require_form(manifest: Any, *, where: str) -> None:
    """Checks a manifest as it was parsed; fields that nothing here reads may be anything.

    Raises:
        CheckpointError: another format, a field is missing or of another kind, or `files` names
            something that is no file of an adapter folder.
    """
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        later = isinstance(found, int) and found > FORMAT
        raise CheckpointError(
            f"format {str(found)[:40]}",
            where=where,
            expected=f"format {FORMAT}",
            do="it is of a later qvft: update qvft" if later else None,
        )
    _require_kinds(manifest, _KINDS, where=where)
    _require_entries(manifest["bridge"], where=f"{where}: bridge")
    if any(name.startswith(_OF_OLD_QVISION) for name in manifest["bridge"]):
        from qvft.models.qvision.configuration import OLD_FUNCTION

        raise CheckpointError(OLD_FUNCTION, where=where)
    if "alignment" in manifest:
        _require_kinds({"alignment": manifest["alignment"]}, {"alignment": dict}, where=where)
        _require_kinds(manifest["alignment"], _ALIGNMENT, where=f"{where}: alignment")
        _require_entries(manifest["alignment"]["weights"], where=f"{where}: alignment.weights")
    if "objectives" in manifest:
        _require_kinds(manifest, {"objectives": dict}, where=where)
        _require_entries(manifest["objectives"], where=f"{where}: objectives")
    files = manifest.get("files", {})
    if not isinstance(files, dict) or not set(files) <= set(READ):
        raise CheckpointError(
            "`files` names what is no file of an adapter",
            where=where,
            expected="some of " + ", ".join(READ),
        )


def _require_kinds(content: Mapping[str, Any], kinds: Mapping[str, type], *, where: str) -> None:
    for key, kind in kinds.items():
        value = content.get(key)
        if type(value) is not kind:
            given = f"`{key}` is {type(value).__name__}" if key in content else f"no `{key}`"
            raise CheckpointError(
                given, where=where, expected=f"{kind.__name__}", do="copy the folder again"
            )


def _require_entries(entries: Mapping[str, Any], *, where: str) -> None:
    """Each weight's entry has a shape and a type."""
    for name, entry in entries.items():
        shape = entry.get("shape") if isinstance(entry, dict) else None
        whole = isinstance(shape, list) and all(type(size) is int for size in shape)
        if not whole or not isinstance(entry.get("dtype"), str):
            raise CheckpointError(f"the entry of {name[:80]} has no shape and dtype", where=where)
