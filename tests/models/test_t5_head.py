"""T5's output head with weights of its own: loaded as it is, without a warning that misleads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qvft.log import collected_warnings
from qvft.models.base_checkpoint import find_checkpoint
from qvft.models.load import load_model
from qvft.models.t5_head import HEAD
from tests.models.decoder_models import TEXT, write_model


@pytest.fixture
def folder(tmp_path: Path, tiny_folder: Path) -> Path:
    return write_model(tmp_path / "t5", tiny_folder, TEXT["t5"])


def test_a_head_of_its_own_is_loaded_without_a_warning(folder: Path) -> None:
    with collected_warnings("transformers") as said:
        model = load_model(find_checkpoint(str(folder)), dtype=torch.float32)
    assert not said
    assert torch.equal(model.get_parameter(HEAD), load_file(folder / "model.safetensors")[HEAD])


def test_a_head_that_the_configuration_ties_is_warned_of_as_before(folder: Path) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config["text_config"]["scale_decoder_outputs"] = True
    file.write_text(json.dumps(config))
    with collected_warnings("transformers") as said:
        load_model(find_checkpoint(str(folder)), dtype=torch.float32)
    assert any("NOT tie" in text for text in said)
