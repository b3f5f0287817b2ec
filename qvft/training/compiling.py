"""The decoder's blocks, compiled."""

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
    """Checks that torch.compile has what it needs on a device, before anything long begins.

    Raises:
        RecipeError: it has not.
    """
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


def compile_blocks(model: PreTrainedModel, family: Family, wanted: bool) -> None:
    """Has the decoder's blocks run compiled from their next call on, or as they are.

    They are compiled in place, so that no weight changes its name; one code serves all of them, and
    rows of any length. What lies around them is a small part of the work, and its shapes depend on
    the data.
    """
    blocks = model.get_submodule(family.blocks(model.config))
    assert isinstance(blocks, nn.ModuleList)
    for block in blocks:
        if wanted:
            block.compile(dynamic=True)
        else:
            block._compiled_call_impl = None  # torch has no public way back
