"""A checkpoint's weights are read under the model's names, or left to transformers to load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import Blip2ForConditionalGeneration, PretrainedConfig

from qvft.models.checkpoint_tensors import Checkpoint, open_checkpoint
from qvft.models.reference_configs import meta_model
from qvft.weights.base_weights import stored_weights
from tools.tiny_blip2.geometry import tiny_config


class Tied(nn.Module):
    """An embedding (4, 2), a bias (3,) and a head that is the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(4, 2)
        self.bias = nn.Parameter(torch.zeros(3))
        self.head = nn.Linear(2, 4, bias=False)
        self.head.weight = self.embed.weight


EMBED, BIAS = torch.arange(8.0).reshape(4, 2), torch.arange(3.0)


def checkpoint(folder: Path, *files: dict[str, Tensor]) -> Checkpoint:
    """A checkpoint of these files."""
    places: dict[str, Path] = {}
    shapes: dict[str, Any] = {}
    for number, tensors in enumerate(files):
        path = folder / f"{number}.safetensors"
        save_file({key: tensor.clone() for key, tensor in tensors.items()}, path)
        places |= dict.fromkeys(tensors, path)
        shapes |= {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    return Checkpoint("id", str(folder), None, PretrainedConfig(), places, shapes)


def test_weights_are_those_that_transformers_loads(tiny_folder: Path) -> None:
    found = open_checkpoint(str(tiny_folder), where="model.id")
    weights = stored_weights(found, meta_model(tiny_config()))
    assert weights is not None
    loaded = Blip2ForConditionalGeneration.from_pretrained(tiny_folder).state_dict()
    assert list(weights) == list(loaded)
    assert len(weights) == len(loaded)
    assert all(torch.equal(weights[key], loaded[key]) for key in loaded)


@pytest.mark.parametrize(
    "names", [["embed.weight"], ["head.weight"], ["embed.weight", "head.weight"]]
)
def test_a_tied_weight_may_be_stored_under_any_of_its_names(tmp_path: Path, names) -> None:
    found = checkpoint(tmp_path, dict.fromkeys(names, EMBED), {"bias": BIAS})
    weights = stored_weights(found, Tied())
    assert weights is not None
    assert weights["embed.weight"].tolist() == weights["head.weight"].tolist() == EMBED.tolist()
    assert weights["bias"].tolist() == BIAS.tolist()


@pytest.mark.parametrize(
    "stored",
    [
        {"bias": BIAS},
        {"embed.weight": EMBED, "bias": BIAS, "odd": BIAS},
        {"embed.weight": EMBED, "bias": BIAS[:2]},
        {"embed.weight": EMBED, "layer.bias": BIAS},
        {"embed.weight": EMBED, "head.weight": EMBED + 1, "bias": BIAS},
    ],
    ids=["missing", "surplus", "shape", "name", "ties differ"],
)
def test_what_loading_would_have_to_change_is_left_to_it(tmp_path: Path, stored) -> None:
    assert stored_weights(checkpoint(tmp_path, stored), Tied()) is None


def test_each_look_up_reads_the_file(tmp_path: Path) -> None:
    stored = {"embed.weight": EMBED, "bias": BIAS}
    weights = stored_weights(checkpoint(tmp_path, stored), Tied())
    assert weights is not None
    first = weights["bias"]
    save_file({**stored, "bias": BIAS + 1}, tmp_path / "0.safetensors")
    assert weights["bias"].tolist() == [1, 2, 3]
    assert first.tolist() == [0, 1, 2]
