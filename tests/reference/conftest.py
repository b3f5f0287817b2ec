"""Folders of reference numbers, skipped where they are absent."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def stage1(shared_data: Path) -> Path:
    """Weights, inputs and outputs of LAVIS' first stage."""
    found = shared_data / "reference" / "lavis_stage1"
    if not found.is_dir():
        pytest.skip(f"no reference numbers: {found} is absent")
    return found
