"""`torch.compile` of the decoder's blocks."""

from __future__ import annotations

import importlib.util
import os
import shutil

import torch
from torch import nn
from transformers import PreTrainedModel

from qvft.errors import RecipeError
from qvft.models.families import Family

WHERE = "train.torch_compile"


def require_compiler(place: torch.device) -> None:
    """Raises RecipeError if torch.compile has no compiler for a device."""
    if place.type == "cpu":
        compiler = os.environ.get("CXX", "g++")
        if not any(shutil.which(name) for name in (compiler, "clang++")):
            raise RecipeError(
                f"true, but there is no C++ compiler ({compiler} is not on the path)",
                where=WHERE,
                expected="a C++ compiler, with which torch compiles for a CPU",
                do="install g++, name another in $CXX, or leave it at false",
            )
    elif importlib.util.find_spec("triton") is None:
        raise RecipeError(
            "true, but Triton is not installed",
            where=WHERE,
            expected="the triton package, with which torch compiles for a GPU",
            do="install it, or leave it at false",
        )


def compile_blocks(model: PreTrainedModel, family: Family, enabled: bool) -> None:
    """Compiles the decoder's blocks in place, or restores them.

    In place, so that no parameter is renamed. All blocks share one compiled code, for rows of any
    length. The rest of the model is a small part of the work, and its shapes depend on the data.
    """
    for prefix in family.blocks(model.config):
        blocks = model.get_submodule(prefix)
        assert isinstance(blocks, nn.ModuleList)
        for block in blocks:
            if enabled:
                block.compile(dynamic=True)
            else:
                block._compiled_call_impl = None  # torch has no public way back
