"""A file written weight by weight has the bytes that safetensors gives it at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from qvft.weights.tensor_file import write_tensor_file

TYPES = (
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.float16,
    torch.bfloat16,
    torch.int32,
    torch.float32,
    torch.float64,
    torch.int64,
)


def outline_of(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: tensor.to("meta") for key, tensor in tensors.items()}


def test_the_bytes_are_those_of_safetensors(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        f"{name}.{number}": torch.randint(0, 2, (2, 3), generator=generator).to(dtype)
        for number, dtype in enumerate(TYPES)
        for name in ("b", "a.10", "a.9", "Z")
    }
    tensors |= {"one": torch.tensor(0.5), "none": torch.zeros(0, 4), "größe": torch.ones(5)}
    save_file(tensors, tmp_path / "theirs", metadata={"format": "pt"})
    write_tensor_file(tmp_path / "ours", outline_of(tensors), tensors.__getitem__)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_a_turned_weight_is_written_as_it_reads(tmp_path: Path) -> None:
    turned = torch.arange(6.0).reshape(2, 3).T
    write_tensor_file(tmp_path / "file", {"w": turned}, lambda _: turned)
    assert load_file(tmp_path / "file")["w"].tolist() == turned.tolist()


def test_a_weight_that_is_not_as_announced_is_our_mistake(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="w"):
        write_tensor_file(tmp_path / "file", {"w": torch.zeros(2)}, lambda _: torch.zeros(3))
