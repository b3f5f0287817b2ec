"""The study behind the QVision figures of docs/explain.md: what its model is, that it runs."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from qvft.models.base_checkpoint import find_checkpoint
from qvft.models.load import load_model
from qvft.setup.resolve_model import resolve_model

SCRIPT = Path(__file__).resolve().parents[1] / "docs" / "studies" / "qvision_attention.py"


@pytest.fixture
def study() -> ModuleType:
    spec = importlib.util.spec_from_file_location("qvision_attention_study", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_siglip_is_the_vit_without_its_class_token(
    study: ModuleType, tiny_folder: Path
) -> None:
    vit = load_model(find_checkpoint(str(tiny_folder)), dtype=torch.float32).vision_model
    pixels = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        hidden = vit.embeddings(pixels)[:, 1:]
        expected = vit.post_layernorm(vit.encoder(inputs_embeds=hidden).last_hidden_state)
        found = study.siglip_of(vit).eval()(pixel_values=pixels).last_hidden_state
    # The same float32 sums through four layers; states are about 1 in size.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_visual_tokens_are_grouped_by_cosine(study: ModuleType) -> None:
    similarity = np.eye(4)
    assert study.groups(similarity) == 4
    similarity[0, 2] = similarity[2, 0] = 0.995
    assert study.groups(similarity) == 3
    assert study.groups(np.ones((4, 4))) == 1


def test_it_trains_a_run_that_can_be_opened(
    study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    given = [str(tmp_path), "--steps", "1", "--scenes", "16"]
    monkeypatch.setattr("sys.argv", [str(SCRIPT), *given])
    assert study.main() == 0
    opened = resolve_model(str(tmp_path / "run"))
    assert (opened.kind, opened.recipe.model.family) == ("run", "qvision")
    assert " in 100 scenes" in capsys.readouterr().out
