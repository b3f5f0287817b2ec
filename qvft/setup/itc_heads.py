"""Whether a model has ITC heads to compare images with texts. Does not import torch."""

from __future__ import annotations

from qvft.adapters.manifest import read_manifest
from qvft.errors import CheckpointError
from qvft.json_files import read_json
from qvft.models.families import RETRIEVAL_CLASS
from qvft.models.model_path import TINY_ID
from qvft.setup.resolve_model import ResolvedModel


def retrieves(opened: ResolvedModel) -> bool:
    """Whether it is a run with heads trained by `itc`."""
    if opened.kind != "run" or opened.home is None:
        return False
    alignment = read_manifest(opened.home / "adapter").get("alignment", {})
    return "itc" in alignment.get("objectives", ())


def is_retrieval_checkpoint(opened: ResolvedModel) -> bool:
    """Whether it is a `Blip2ForImageTextRetrieval`, exported by qvft or from the hub."""
    if opened.kind == "run" or opened.name == TINY_ID:
        return False
    path = opened.home and opened.home / "config.json"
    if path is None:
        from qvft.models.checkpoint_files import checkpoint_file

        path = checkpoint_file(opened.name, "config.json", opened.recipe.model.revision)
    classes = read_json(path).get("architectures") if path is not None else None
    return classes == [RETRIEVAL_CLASS]


def has_contrast(opened: ResolvedModel) -> bool:
    """Whether it has heads trained by `itc`: a run, or a retrieval checkpoint, unless it is
    exported from a run without `itc`."""
    if not is_retrieval_checkpoint(opened):
        return retrieves(opened)
    record = opened.home and opened.home / "export.json"
    exported = read_json(record) if record and record.is_file() else None
    return exported is None or "itc" in exported["verification"].get("objectives", ("itc",))


def require_contrast(opened: ResolvedModel) -> None:
    """Raises CheckpointError if a model has no heads trained by `itc`."""
    if not has_contrast(opened):
        raise no_contrast(opened.name)


def no_contrast(name: str) -> CheckpointError:
    """The error for a model whose images cannot be compared with texts."""
    return CheckpointError(
        "has no contrast heads",
        where=name,
        expected="a run with itc among its objectives, what qvft export --to retrieval writes of "
        "one, or a Blip2ForImageTextRetrieval",
    )
