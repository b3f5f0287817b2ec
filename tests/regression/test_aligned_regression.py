"""Runs with alignment heads that earlier versions wrote: loaded, evaluated, exported, continued."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from measuring import alignment, losses_of_step, recalls, row_losses, texts
from safetensors.torch import load_file
from transformers import AutoProcessor, Blip2ForImageTextRetrieval

from qvft.check import main as check
from qvft.export import main as export
from qvft.setup.data import read_texts
from qvft.setup.model import trained_model
from qvft.setup.run_recipe import run_recipe
from qvft.train import main as train

KEPT = sorted(Path(__file__).with_name("aligned").glob("*/expected.json"))
TOLERANCE = {"rel": 1e-4, "abs": 1e-5}
"""Float32 sums of some hundred terms, in the order that a CPU and a torch release like best; one
training step at this learning rate moves the scores by more than 1e-3."""

Kept = tuple[Path, dict[str, Any]]


@pytest.fixture(params=[path.parent for path in KEPT], ids=lambda folder: folder.name)
def kept(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    """A copy of a run, where its recipe looks for it and its base, and what it said then."""
    run = tmp_path / "runs" / "aligned"
    shutil.copytree(request.param, run)
    shutil.move(run / "base", tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    return Path("runs/aligned"), json.loads((run / "expected.json").read_text())


def nearly(scores: list[list[float]]) -> list[Any]:
    return [pytest.approx(row, **TOLERANCE) for row in scores]


def test_there_is_a_run_with_heads_of_every_version_so_far() -> None:
    assert [path.parent.name for path in KEPT] == ["0.1.0"]


def test_an_earlier_run_with_heads_says_what_it_said(kept: Kept) -> None:
    run, expected = kept
    recipe = run_recipe(run, [])
    found = row_losses(trained_model(run, recipe), recipe)
    assert found == pytest.approx(expected["row_losses"], **TOLERANCE)
    base = expected["base_row_losses"]
    assert sum(base.values()) > 1.1 * sum(found.values())  # it is not the base that was asked
    scores = alignment(run, recipe)
    assert scores.keys() == expected["scores"].keys()
    for name, rows in expected["scores"].items():
        assert scores[name] == nearly(rows), name
    assert texts(run) == expected["texts"]
    assert recalls(run) == expected["recalls"]
    assert check([str(run)]) == 0  # the report just written among what is verified


@torch.no_grad()
def test_an_earlier_run_with_heads_is_exported_to_retrieval(kept: Kept) -> None:
    run, expected = kept
    assert export([str(run), "retrieval", "--to", "retrieval"]) == 0
    model = Blip2ForImageTextRetrieval.from_pretrained("retrieval").eval()
    samples = read_texts(run_recipe(run, []), "eval")
    captions = [caption for sample in samples for caption in sample.captions]
    inputs = AutoProcessor.from_pretrained("retrieval")(
        images=[sample.image.open() for sample in samples],
        text=captions,
        return_tensors="pt",
        padding=True,
        truncation=True,
    )
    cosines = model(**inputs, use_image_text_matching_head=False).logits_per_image
    assert cosines.tolist() == nearly(expected["scores"]["cosines"])


def test_an_earlier_run_with_heads_is_gone_on_with(kept: Kept) -> None:
    run, expected = kept
    then, stood = Path("adapter_then"), run / "checkpoints" / "0" / "checkpoint-117"
    shutil.move(run / "adapter", then)
    assert train([str(run / "recipe.lock.yaml"), "train.resume=auto"]) == 0
    # Of the steps 118 to 120.
    assert losses_of_step(run, 120) == pytest.approx(expected["last_losses"], **TOLERANCE)
    for name in ("alignment", "bridge", "adapter_model"):
        found = load_file(run / "adapter" / f"{name}.safetensors")
        then_saved = load_file(then / f"{name}.safetensors")
        assert found.keys() == then_saved.keys()
        for key, weight in then_saved.items():
            # Three steps of at most 0.01, each over moments of 117 before it, so that a gradient's
            # last digits move it by as small a share: a tenth of a step is far above that.
            torch.testing.assert_close(found[key], weight, rtol=0, atol=1e-3, msg=key)
    moved, stood = (load_file(one / "bridge.safetensors") for one in (run / "adapter", stood))
    assert max((moved[key] - stood[key]).abs().max() for key in moved) > 1e-2
