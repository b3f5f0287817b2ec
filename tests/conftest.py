"""Fixtures for all tests; nothing here or in the tests needs a network."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data, `$QVFT_TEST_DATA` or `../shared/data` from the project's root."""
    folder = Path(os.environ.get("QVFT_TEST_DATA") or PROJECT / ".." / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no test data: {folder} is absent (set QVFT_TEST_DATA)")
    return folder


@pytest.fixture
def datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh cache for `datasets`, so that no test sees what another has read."""
    import datasets

    folder = tmp_path / "datasets_cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    datasets.disable_progress_bars()
    return folder
