"""A run with contrast and matching, and what it is asked about."""

from __future__ import annotations

from pathlib import Path

import pytest

from qvft.export import main as export
from qvft.setup.alignment_model import AlignmentModel, load_alignment_model
from qvft.train import main as train

DRAWN = [
    "data.train={format: drawn, path: 'seed=5,count=40,size=48', texts: captions}",
    "data.eval={format: drawn, path: 'seed=6,count=8,size=48', name: drawn-eight}",
    "train.save_steps=null",
    "eval.blind=false",
]


@pytest.fixture(scope="session")
def aligned_run(recipe_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with contrast and matching that saw each scene several times."""
    run = tmp_path_factory.mktemp("runs") / "aligned"
    weights = ["objectives={itc: 1.0, itm: 1.0}", "eval.rerank=4"]
    assert train([str(recipe_file), f"run.dir={run}", *weights, *DRAWN]) == 0
    return run


@pytest.fixture(scope="session")
def aligned(aligned_run: Path) -> AlignmentModel:
    return load_alignment_model(aligned_run)


@pytest.fixture(scope="session")
def retrieval_folder(aligned_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run exported as a plain `Blip2ForImageTextRetrieval`."""
    out = tmp_path_factory.mktemp("exported") / "retrieval"
    assert export([str(aligned_run), str(out), "--to", "retrieval"]) == 0
    return out
