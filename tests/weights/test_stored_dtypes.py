"""Types of stored weights, from headers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from qvft.errors import ModelError
from qvft.weights.merge_inputs import main_dtype, stored_dtypes, widest_dtype


def test_weights_are_counted_by_type_over_all_files(tmp_path: Path) -> None:
    half = {"a": torch.zeros(3, 4, dtype=torch.bfloat16), "n": torch.zeros(2, dtype=torch.int64)}
    save_file(half, tmp_path / "a.safetensors")
    save_file({"b": torch.zeros(5)}, tmp_path / "b.safetensors")
    counts = stored_dtypes(sorted(tmp_path.iterdir()))
    assert counts == {torch.bfloat16: 12, torch.float32: 5}
    assert main_dtype(counts) == torch.bfloat16
    assert widest_dtype(counts) == torch.float32


def test_two_half_types_need_float32_to_hold_both() -> None:
    assert widest_dtype({torch.float16: 1, torch.bfloat16: 1}) == torch.float32


def test_no_file_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no floating weights"):
        stored_dtypes([])
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="cannot be read"):
        stored_dtypes([tmp_path / "a.safetensors"])
