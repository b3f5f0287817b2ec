"""Whether a model has ITC heads to compare images with texts. Does not import torch."""

from __future__ import annotations

from qvft.adapters.manifest import read_manifest
from qvft.errors import CheckpointError
from qvft.setup.resolve_model import ResolvedModel


def retrieves(opened: ResolvedModel) -> bool:
    """Whether it is a run with heads trained by `itc`."""
    if opened.kind != "run" or opened.home is None:
        return False
    alignment = read_manifest(opened.home / "adapter").get("alignment", {})
    return "itc" in alignment.get("objectives", ())


def require_contrast(opened: ResolvedModel) -> None:
    """Raises CheckpointError if a model is not a run, or was trained without `itc`."""
    if not retrieves(opened):
        raise CheckpointError(
            "has no contrast heads" if opened.kind == "run" else "is not a run of qvft.train",
            where=opened.name,
            expected="a run with itc among its objectives, which compares images with texts",
        )
