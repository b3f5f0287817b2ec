"""Fewer query tokens: what stays, and that the smaller model is whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, Blip2ForConditionalGeneration

from qvft.errors import ModelError
from qvft.models.query_count import config_with_queries, keep_first_queries


@pytest.fixture
def model(tiny_folder: Path) -> Blip2ForConditionalGeneration:
    return Blip2ForConditionalGeneration.from_pretrained(tiny_folder).eval()


def test_the_first_query_tokens_stay_as_they_are(model) -> None:
    before = model.query_tokens.detach().clone()
    model.query_tokens.requires_grad_(False)
    keep_first_queries(model, 4)
    assert torch.equal(model.query_tokens, before[:, :4])
    assert not model.query_tokens.requires_grad
    assert isinstance(model.query_tokens, torch.nn.Parameter)
    assert model.config.num_query_tokens == 4


def test_a_cut_model_runs_saves_and_loads_with_its_processor(
    model, tiny_folder: Path, tmp_path: Path
) -> None:
    processor = AutoProcessor.from_pretrained(tiny_folder)
    processor.num_query_tokens = 4
    keep_first_queries(model, 4)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = Blip2ForConditionalGeneration.from_pretrained(tmp_path).eval()
    batch = AutoProcessor.from_pretrained(tmp_path)(
        Image.new("RGB", (48, 48), "red"), "Question: what? Answer:", return_tensors="pt"
    )
    assert int((batch["input_ids"] == model.config.image_token_id).sum()) == 4
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, model(**batch).logits)


def test_configuration_and_processor_are_copied(model, tiny_folder: Path) -> None:
    assert config_with_queries(model.config, 3).num_query_tokens == 3
    assert model.config.num_query_tokens == 12


@pytest.mark.parametrize("count", [0, 13])
def test_a_number_that_is_not_there_is_refused(model, count: int) -> None:
    with pytest.raises(ModelError, match=f"{count} of 12 query tokens.*a number from 1 to 12"):
        config_with_queries(model.config, count)
