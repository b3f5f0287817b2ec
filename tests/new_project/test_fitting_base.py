"""The base model follows the GPU's free memory."""

from __future__ import annotations

import pytest

from qvft.models.model_path import TINY_ID
from qvft.new_project import fitting_base
from qvft.new_project.fitting_base import OPT


def test_more_memory_takes_more_bits_and_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        fitting_base,
        "estimated_bytes",
        lambda model, *, rows, max_text_tokens: (
            (3 if "quantization" in model else 9) * 10**9 + rows * 10**8
        ),
    )
    chosen = [fitting_base.fitting_base(gb * 10**9, max_text_tokens=128) for gb in (80, 13, 7, 4)]
    bits = ["quantization" in model for model, _, _ in chosen]
    assert [model["id"] for model, _, _ in chosen] == [OPT, OPT, OPT, TINY_ID]
    assert bits == [False, False, True, False]
    assert [rows for _, rows, _ in chosen] == [16, 4, 4, 0]


def test_no_gpu_takes_the_bundled_model() -> None:
    assert fitting_base.fitting_base(None, max_text_tokens=128) == ({"id": TINY_ID}, 0, 0)


def test_four_bits_fit_a_gpu_of_8_gb() -> None:
    """As `recipes/custom_jsonl.yaml` says; 8 GiB are 8.6 GB, of which CUDA takes some.
    OPT-2.7B's blocks take 1.4 GB in NF4, the ViT and the embeddings 2.5 GB in bfloat16."""
    model = {"id": OPT, "quantization": fitting_base.NF4}
    needed = fitting_base.estimated_bytes(model, rows=4, max_text_tokens=128)
    assert needed > 4e9
    assert needed * fitting_base.MARGIN + fitting_base.RESERVE < 8.2e9
