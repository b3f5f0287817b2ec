"""A question-aware model as a folder that plain transformers loads."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import GenerationConfig

from qvft.errors import VerificationError
from qvft.files import new_folder, require_space
from qvft.models.question_aware.build import graft_model, graft_processor, graft_state
from qvft.models.question_aware.checkpoint import open_checkpoint
from qvft.models.question_aware.graft import Graft


def write_graft(graft: Graft, out: Path, *, dtype: torch.dtype, shard_size: str = "5GB") -> None:
    """Writes the model and its processor as a new folder, then compares it with the plan.

    `InstructBlipForConditionalGeneration.from_pretrained` and `AutoProcessor.from_pretrained` load
    it. Memory holds one copy of the model.

    Args:
        out: a folder that is not there or is empty.
        dtype: what weights are written in.
        shard_size: most bytes of a file, as transformers reads it, e.g. `5GB`.

    Raises:
        DataError: `out` exists.
        SpaceError: the disk is too full.
        VerificationError: a weight that was written is not the planned one.
    """
    processor = graft_processor(graft)
    with new_folder(out) as folder:
        model = graft_model(graft, dtype=dtype)
        require_space(folder, sum(p.numel() for p in model.parameters()) * dtype.itemsize)
        text = graft.config.text_config
        model.generation_config = GenerationConfig(
            bos_token_id=text.bos_token_id,
            eos_token_id=text.eos_token_id,
            pad_token_id=text.pad_token_id,
        )
        model.save_pretrained(folder, max_shard_size=shard_size)
        processor.save_pretrained(folder)
        del model
        # safetensors makes its files readable by their owner alone; a server is often another user
        mode = (folder / "config.json").stat().st_mode
        for path in folder.glob("*.safetensors"):
            path.chmod(mode)
        verify_folder(graft, folder, dtype=dtype)


def verify_folder(graft: Graft, folder: Path, *, dtype: torch.dtype) -> None:
    """Compares every weight in a folder with its origin, bit by bit, one at a time.

    Raises:
        VerificationError: one is missing, surplus or differs.
    """
    written = open_checkpoint(str(folder), where="the written folder")
    planned = graft_state(graft)
    lost = sorted(set(planned) - set(written.files))
    odd = sorted(set(written.files) - set(planned))
    for key in sorted(set(planned) & set(written.files)):
        stored = written.tensors([key])[key]
        if not torch.equal(stored, planned[key].to(dtype)):
            odd.append(key)
    if lost or odd:
        raise VerificationError(
            f"{folder} lacks {lost[:3]} and holds {odd[:3]}, which the plan does not say"
        )
