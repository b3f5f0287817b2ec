"""Small QVision models of every kind of tower and decoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from qvft.models.qvision.configuration import QVisionConfig
from qvft.models.qvision.modeling import QVisionForConditionalGeneration
from tests.models.qvision_models import VOCABULARY, small_config


@pytest.fixture(scope="session")
def make_config() -> Callable[..., QVisionConfig]:
    """`small_config`."""
    return small_config


@pytest.fixture(scope="session")
def make_model() -> Callable[..., QVisionForConditionalGeneration]:
    """A function that draws a small model in evaluation mode; equal seeds, equal weights."""

    def make(*kinds: str, seed: int = 0, **changes: Any) -> QVisionForConditionalGeneration:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return QVisionForConditionalGeneration(small_config(*kinds, **changes)).eval()

    return make


@pytest.fixture
def pixels() -> Tensor:
    """Three normalised images (3, 3, 16, 16)."""
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def ids() -> Tensor:
    """Three rows of nine tokens, none of them special: longer than GPT-Neo's window."""
    return torch.randint(3, VOCABULARY, (3, 9), generator=torch.Generator().manual_seed(2))
