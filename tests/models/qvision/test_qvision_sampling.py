"""The published sampling by transformers' own processors: which settings give it.

Reference: the original's `generate_caption` at temperature 0.7, repetition penalty 1.5 over all
tokens so far with `<START>`, `<END>` not before 5 tokens with `<START>`, top-k, top-p 0.9.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from qvft import load_model as open_model
from qvft.models.base_checkpoint import find_checkpoint
from qvft.models.load import load_model

# `<START>` is the prompt, so that 4 new tokens make 5.
SAMPLING = {
    "do_sample": True,
    "temperature": 0.7,
    "top_p": 0.9,
    "repetition_penalty": 1.5,
    "min_new_tokens": 4,
    "max_new_tokens": 20,
}


@pytest.fixture(scope="module")
def model(published_qvision: Path) -> Any:
    return load_model(find_checkpoint(str(published_qvision)), dtype=torch.float32)


@pytest.fixture(scope="module")
def pixels(published_qvision: Path) -> Tensor:
    return load_file(published_qvision / "inputs.safetensors")["pixel_values"]


@pytest.fixture(scope="module")
def expected(published_qvision: Path) -> dict[str, Any]:
    return json.loads((published_qvision / "expected.json").read_text(encoding="utf-8"))


def test_with_one_candidate_left_the_texts_are_the_originals(model, pixels, expected) -> None:
    """The least margin of a choice is 0.003, three hundred times what rounding moves."""
    ids = model.generate(pixel_values=pixels, top_k=1, **SAMPLING)
    assert ids.tolist() == [one["ids"] for one in expected["generate_caption_top_k_1"]]


def test_each_step_draws_from_the_originals_distribution(
    model, pixels, expected, published_qvision, monkeypatch
) -> None:
    """As there, the drawing is replaced by the likeliest token."""
    monkeypatch.setattr(
        torch, "multinomial", lambda given, num_samples: given.argmax(-1, keepdim=True)
    )
    found = model.generate(
        pixel_values=pixels[:1],
        top_k=40,
        return_dict_in_generate=True,
        output_scores=True,
        **SAMPLING,
    )
    assert found.sequences[0].tolist() == expected["sampling_path_image_0"]
    drawn_from = torch.stack([scores[0].softmax(dim=-1) for scores in found.scores])
    tensors = load_file(published_qvision / "expected.safetensors")
    # Logits are off by 1e-5 at most and divided by the temperature; a probability by as much.
    torch.testing.assert_close(
        drawn_from, tensors["sampling_probabilities_image_0"], rtol=0, atol=1.5e-5
    )


def test_qvfts_own_way_takes_the_same_settings(published_qvision, expected) -> None:
    """Batches are padded there, which neither the penalty nor the least length counts."""
    images = [published_qvision / "images" / f"{n}.png" for n in range(3)]
    texts = open_model(str(published_qvision)).caption(images, num_beams=1, top_k=1, **SAMPLING)
    assert texts == [one["text"].strip() for one in expected["generate_caption_top_k_1"]]


def test_end_is_forbidden_before_five_tokens(model, pixels) -> None:
    """Even where it is by far the likeliest: it is the sixth, behind `<START>` and four others."""
    end = model.config.text_config.eos_token_id
    ids = model.generate(pixel_values=pixels, top_k=40, sequence_bias={(end,): 1000.0}, **SAMPLING)
    assert ids.shape == (3, 6)
    assert (ids[:, 5] == end).all() and (ids[:, :5] != end).all()
