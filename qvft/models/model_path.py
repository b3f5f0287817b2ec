"""Checks a recipe's `model.base` as a path or hub id.

Nothing here imports torch.
"""

from __future__ import annotations

from pathlib import Path

from qvft.errors import ModelError

TINY_ID = "qvft/tiny-blip2"
FRESH = "fresh"


def names_folder(model_id: str) -> bool:
    """Whether a name cannot be a hub id, which has at most one slash and begins with a letter."""
    return model_id.startswith(("/", ".", "~")) or model_id.count("/") > 1


def require_folder(model_id: str, *, where: str = "model.id") -> None:
    """Raises ModelError if a name is a folder that does not exist or holds no model."""
    folder = Path(model_id)
    if model_id == TINY_ID:
        return
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(
                "no config.json", where=model_id, expected="a folder that save_pretrained wrote"
            )
    elif not folder.exists() and names_folder(model_id):
        raise ModelError("no such folder", where=f"{where}={model_id}")
